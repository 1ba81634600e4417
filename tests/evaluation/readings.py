"""Hand-made truths and readings with known answers."""

import torch
from torch import Tensor

from harald.evaluation.panel import HIDDEN, Truth
from harald.evaluation.seen import Seen

ATTRIBUTES = {"hair": ("bald", "long", "bob"), "glasses": ("none", "round", "square"), "scene": ("park", "beach")}


def truth(labels: list[list[int]], rivals: list[list[int]] | None = None, **changes) -> Truth:
    """One person for each two cells, all twins, all within photos, unless changes say otherwise."""
    count = len(labels)
    known = {
        "attributes": ATTRIBUTES,
        "labels": torch.tensor(labels),
        "rivals": torch.tensor(rivals or [[HIDDEN] * len(ATTRIBUTES)] * count),
        "people": torch.arange(count) // 2,
        "relations": ("twin",) * count,
        "pairs": (("photo", "photo"),) * count,
    }
    return Truth(**known | changes)


def many(count: int = 400) -> Truth:
    """Random looks of twins that always differ in hair; a tenth of the parts is hidden."""
    draw = torch.Generator().manual_seed(0)
    sizes = [len(classes) for classes in ATTRIBUTES.values()]
    own = torch.stack([torch.randint(size, (count,), generator=draw) for size in sizes], 1)
    rival = torch.stack([torch.randint(size, (count,), generator=draw) for size in sizes], 1)
    rival[:, 0] = (own[:, 0] + 1 + rival[:, 0] % 2) % 3
    own[torch.rand(own.shape, generator=draw) < 0.1] = HIDDEN
    return truth(own.tolist(), rival.tolist())


def reading(said: Tensor, sure: float = 4.0, identity: Tensor | None = None) -> Seen:
    """A judge that says these classes, [n, A]; negative: it names none and all classes are alike to it."""
    scores = {}
    for place, (name, classes) in enumerate(ATTRIBUTES.items()):
        values = torch.zeros(len(said), len(classes))
        named = (said[:, place] >= 0).nonzero()[:, 0]
        values[named, said[named, place]] = sure
        scores[name] = values.log_softmax(1)
    return Seen(scores, said, identity)


def perfect(known: Truth) -> Seen:
    return reading(known.labels.clamp(min=0))


def coin(known: Truth) -> Seen:
    """Says anything."""
    draw = torch.Generator().manual_seed(1)
    sizes = [len(classes) for classes in ATTRIBUTES.values()]
    return reading(torch.stack([torch.randint(size, (len(known),), generator=draw) for size in sizes], 1))

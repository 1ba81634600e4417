"""Is the state kept? The judge's classes of drawn pictures against the truth, where the target view shows it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from harald.evaluation.accuracy import Score, balanced_accuracy
from harald.evaluation.paired import mean, ratio, resampled
from harald.evaluation.panel import NONE, Truth
from harald.evaluation.seen import Seen

UNMEASURED = Score(math.nan, math.nan, math.nan, 0)


def attribute_keep(seen: Seen, truth: Truth, name: str, seed: int = 0) -> Score:
    """Balanced accuracy of one attribute."""
    column = list(truth.attributes).index(name)
    return balanced_accuracy(seen.said[:, column], truth.labels[:, column], truth.people, seed)


def attribute_share(seen: Seen, ceiling: Seen, truth: Truth, name: str, seed: int = 0) -> Score:
    """The same as a share of what the judge reaches on other pictures of the same cells.

    Not measured where that is no better than chance: a share of nothing says nothing.
    """
    if not attribute_keep(ceiling, truth, name, seed).low > chance(truth, [name]):
        return UNMEASURED
    column = list(truth.attributes).index(name)
    return ratio(seen.said[:, column], ceiling.said[:, column], truth.labels[:, column], truth.people, seed)


def state_keep(seen: Seen, truth: Truth, seed: int = 0) -> Score:
    """Mean over the state's attributes of the balanced accuracy."""
    sizes = _sizes(truth)

    def measure(hits: Tensor, shown: Tensor) -> Tensor:
        return _balanced(hits, shown, sizes)

    return resampled(measure, (_hits(seen, truth), _shown(truth)), truth.people, seed)


def state_share(seen: Seen, ceiling: Seen, truth: Truth, seed: int = 0) -> Score:
    """state_keep as a share of the ceiling's, where that is better than chance."""
    if not _tells_states(ceiling, truth, seed):
        return UNMEASURED
    sizes = _sizes(truth)

    def measure(hits: Tensor, best: Tensor, shown: Tensor) -> Tensor:
        return _balanced(hits, shown, sizes) / _balanced(best, shown, sizes)

    rows = (_hits(seen, truth), _hits(ceiling, truth), _shown(truth))
    return resampled(measure, rows, truth.people, seed)


def state_gain(seen: Seen, other: Seen, truth: Truth, seed: int = 0) -> Score:
    """state_keep of one arm minus that of another on the same cells."""
    sizes = _sizes(truth)

    def measure(hits: Tensor, less: Tensor, shown: Tensor) -> Tensor:
        return _balanced(hits, shown, sizes) - _balanced(less, shown, sizes)

    return resampled(measure, (_hits(seen, truth), _hits(other, truth), _shown(truth)), truth.people, seed)


def domain_gap(seen: Seen, ceiling: Seen, truth: Truth, pair: tuple[str, str], seed: int = 0) -> Score:
    """state_share in pictures of the domain pair[1] with references of that domain, minus that with references of
    pair[0]; on the cells of these two kinds.
    """
    within = (pair[1], pair[1])
    cells = [row for row, found in enumerate(truth.pairs) if found in (pair, within)]
    seen, ceiling, truth = seen.pick(cells), ceiling.pick(cells), truth.pick(cells)
    if not {pair, within} <= set(truth.pairs) or not _tells_states(ceiling, truth, seed):
        return UNMEASURED
    sizes = _sizes(truth)
    same = torch.tensor([[float(found == within)] for found in truth.pairs], dtype=torch.float64)

    def measure(*rows: Tensor) -> Tensor:
        shares = [_balanced(rows[i], rows[i + 2], sizes) / _balanced(rows[i + 1], rows[i + 2], sizes) for i in (0, 3)]
        return shares[0] - shares[1]

    rows = (_hits(seen, truth), _hits(ceiling, truth), _shown(truth))
    split = (*(row * same for row in rows), *(row * (1 - same) for row in rows))
    return resampled(measure, split, truth.people, seed)


def chance(truth: Truth, names: Sequence[str]) -> float:
    """Balanced accuracy of one and the same answer to everything: mean over the attributes that are shown at all."""
    columns = [truth.labels[:, list(truth.attributes).index(name)] for name in names]
    kinds = [len(column[column >= 0].unique()) for column in columns]
    shares = [1 / count for count in kinds if count]
    return sum(shares) / len(shares) if shares else math.nan


def _tells_states(ceiling: Seen, truth: Truth, seed: int) -> bool:
    names = [list(truth.attributes)[column] for column in truth.state_columns]
    return state_keep(ceiling, truth, seed).low > chance(truth, names)


def invented(seen: Seen, truth: Truth, names: Sequence[str], seed: int = 0) -> Score:
    """Share of what is not worn, and would be seen, that was drawn all the same. names: attributes; without a class
    'none' they do not count. An answer that names no class, unreadable or hidden, invents nothing.
    """
    wrong, bare = torch.zeros(2, len(truth), 1, dtype=torch.float64)
    for column, (name, classes) in enumerate(truth.attributes.items()):
        if name in names and NONE in classes:
            none = list(classes).index(NONE)
            without, said = truth.labels[:, column] == none, seen.said[:, column]
            bare[:, 0] += without
            wrong[:, 0] += without & (said != none) & (said >= 0)

    def measure(errors: Tensor, chances: Tensor) -> Tensor:
        return (errors / chances).squeeze(1)

    return resampled(measure, (wrong, bare), truth.people, seed)


def rights(seen: Seen, truth: Truth) -> Tensor:
    """[n, state attributes] float64: 1 where the judge says the truth, 0 where not, not a number where hidden."""
    labels, said = truth.labels[:, truth.state_columns], seen.said[:, truth.state_columns]
    return torch.where(labels >= 0, (labels == said).double(), torch.nan)


def right_gain(many: Seen, one: Seen, truth: Truth, name: str, seed: int = 0) -> Score:
    """How much oftener `many` is right about an attribute of the state than `one`, where the target shows it."""
    column = truth.state_columns.index(list(truth.attributes).index(name))
    return mean((rights(many, truth) - rights(one, truth))[:, column], truth.people, seed)


def _balanced(hits: Tensor, shown: Tensor, sizes: Sequence[int]) -> Tensor:
    """[draws]: recalls of the classes that occur, averaged within each attribute, then over the attributes."""
    recalls = (hits / shown).split(list(sizes), 1)
    return torch.stack([recall.nanmean(1) for recall in recalls], 1).nanmean(1)


def _sizes(truth: Truth) -> list[int]:
    classes = list(truth.attributes.values())
    return [len(classes[column]) for column in truth.state_columns]


def _shown(truth: Truth) -> Tensor:
    """[n, classes of all state attributes]: 1 for the class that the target shows."""
    labels = truth.labels[:, truth.state_columns]
    parts = [
        one_hot(column.clamp(min=0), size) * (column >= 0)[:, None]
        for column, size in zip(labels.T, _sizes(truth), strict=True)
    ]
    return torch.cat(parts, 1).double()


def _hits(seen: Seen, truth: Truth) -> Tensor:
    """The same where the judge says that class."""
    right = rights(seen, truth).nan_to_num(0.0)
    return _shown(truth) * right.repeat_interleave(torch.tensor(_sizes(truth)), 1)

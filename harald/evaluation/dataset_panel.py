"""A panel from any data set: its validation states. Nobody knows the truth, so the judge's majority stands for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from harald.config import Config
from harald.data.images import load_picture
from harald.data.manifest import split_of
from harald.data.people import split_key
from harald.determinism import rng
from harald.errors import DatasetError
from harald.evaluation.panel import HIDDEN, UNREADABLE, VIEW_ATTRIBUTES, Panel, majority
from harald.evaluation.seen import Seeing, Seen
from harald.records import State


def held_out(states: Sequence[State], config: Config) -> list[State]:
    """Validation states with silent prompts, picked by the seed. Raises DatasetError if there are fewer than two."""
    kept = [state for state in states if split_of(split_key(state), config.data.validation_share) == "validation"]
    silent = [state for state in kept if state.separation != "nothing"]
    if len(silent) < 2:
        raise DatasetError(
            f"{len(kept)} of {len(states)} states are set aside for validation, {len(silent)} of them have prompts "
            "that can be made silent about the person; evaluate needs 2",
            "add states, or raise data.validation_share and train again",
        )
    rng(config.seed, "panel").shuffle(silent)
    return silent[: config.evaluate.states]


def dataset_panel(states: Sequence[State], judge: Seeing) -> tuple[Panel, Seen]:
    """The panel, and what the judge says about all its views, in order. A state's rival is the next state.

    Truth of a state's attributes: the majority of the judge's readable answers over its views; of a view's: the answer
    to that view, and its domain by its name.
    """
    pictures = [load_picture(view.image) for state in states for view in state.views]
    seen, count = judge.see(pictures), len(states)
    said = seen.said.split([len(state.views) for state in states])
    names = list(judge.attributes)
    labels = [_labels(answers, names) for answers in said]
    domains = judge.attributes["domain"]
    for state, rows in zip(states, labels, strict=True):
        rows[:, names.index("domain")] = torch.tensor([domains.index(view.domain) for view in state.views])
    panel = Panel(
        attributes=judge.attributes,
        states=tuple(states),
        labels=tuple(labels),
        people=tuple(range(count)),
        rivals=tuple((number + 1) % count for number in range(count)),
        relations=("stranger",) * count,
    )
    return panel, seen


def _labels(said: Tensor, names: Sequence[str]) -> Tensor:
    """[views, A] answers of one state -> the truth; a view hides what the judge says it does."""
    shared = majority(said).expand(len(said), -1)
    of_view = torch.tensor([name in VIEW_ATTRIBUTES for name in names])
    truth = torch.where(of_view, said, torch.where(said == HIDDEN, HIDDEN, shared))
    return torch.where(truth == UNREADABLE, HIDDEN, truth)

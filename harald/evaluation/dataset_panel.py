"""A panel from any data set: its held-out states. Nobody knows the truth, so the judge's majority stands for it."""

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
    """Held-out states with silent prompts, picked by the seed, a person's states together. Raises DatasetError if there
    are fewer than two.
    """
    kept = [state for state in states if split_of(split_key(state), config.data) == "held_out"]
    people: dict[str, list[State]] = {}
    for state in kept:
        if state.separation != "nothing":
            people.setdefault(split_key(state), []).append(state)
    order = list(people.values())
    rng(config.seed, "panel").shuffle(order)
    chosen = [state for group in order for state in group][: config.evaluate.states]
    if len(chosen) < 2:
        raise DatasetError(
            f"{len(kept)} of {len(states)} states are held out of training, {sum(map(len, order))} of them with "
            f"prompts that can be made silent, and evaluate.states is {config.evaluate.states}: evaluate needs 2",
            "add states, raise evaluate.states, or raise data.held_out_share and train again",
        )
    return chosen


def dataset_panel(states: Sequence[State], judge: Seeing) -> tuple[Panel, Seen]:
    """The panel, and what the judge says about all its views, in order. A state's rival is the same person's next
    state, as people.csv knows it (a twin), else the next state.

    Truth of a state's attributes: the majority of the judge's readable answers over its views; of a view's: the answer
    to that view, and its domain by its name.
    """
    pictures = [load_picture(view.image) for state in states for view in state.views]
    seen, count = judge.see(pictures), len(states)
    people = [split_key(state) for state in states]
    rivals = {number: next_of(people, number) for number in range(count)}
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
        people=tuple(people.index(person) for person in people),
        rivals=tuple(rivals.values()),
        relations=tuple("twin" if people[rival] == people[number] else "stranger" for number, rival in rivals.items()),
    )
    return panel, seen


def next_of(people: Sequence[str], number: int) -> int:
    """The next of the same person, in a circle; without one the next of all."""
    turn = [(number + step) % len(people) for step in range(1, len(people))]
    return next((other for other in turn if people[other] == people[number]), turn[0])


def _labels(said: Tensor, names: Sequence[str]) -> Tensor:
    """[views, A] answers of one state -> the truth; a view hides what the judge says it does."""
    shared = majority(said).expand(len(said), -1)
    of_view = torch.tensor([name in VIEW_ATTRIBUTES for name in names])
    truth = torch.where(of_view, said, torch.where(said == HIDDEN, HIDDEN, shared))
    return torch.where(truth == UNREADABLE, HIDDEN, truth)

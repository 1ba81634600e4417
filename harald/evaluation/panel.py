"""What is drawn and compared: states that no training has seen, the truth about their views, one cell for a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harald.config import Evaluate
from harald.determinism import rng
from harald.records import State, View

HIDDEN, UNREADABLE = -1, -2  # of a part that a view does not show; of an answer that names no class
VIEW_ATTRIBUTES = ("scene", "expression", "pose", "domain")  # the others belong to the state
NONE = "none"  # class of what somebody does not wear
Relation = Literal["twin", "look-alike", "stranger"]


@dataclass(frozen=True)
class Panel:
    """attributes: name -> classes. labels: for each state int64 [views, A], HIDDEN where a view does not show the part.

    people: number of each state's person; states of one number are resampled together. rivals: for each state the one
    that it must not be taken for, and relations, what that one is: the same person in another look (twin), the same
    look on another person (look-alike), or just another state.
    """

    attributes: Mapping[str, Sequence[str]]
    states: tuple[State, ...]
    labels: tuple[Tensor, ...]
    people: tuple[int, ...]
    rivals: tuple[int, ...]
    relations: tuple[Relation, ...]

    def looks(self) -> Tensor:
        """[states, A]: the class that most of a state's views show, HIDDEN where none shows one."""
        return torch.stack([majority(labels) for labels in self.labels])


def majority(labels: Tensor) -> Tensor:
    """[views, A] -> [A]; the first class of those that are equally frequent, HIDDEN where no view shows any."""
    columns = [column[column >= 0] for column in labels.T]
    return torch.stack([c.mode().values if len(c) else torch.tensor(HIDDEN) for c in columns])


@dataclass(frozen=True)
class Cell:
    """A picture to draw. target: number of the view; references: numbers of views, the first n of them are n
    references.
    """

    state: int
    target: int
    references: tuple[int, ...]


def cells(panel: Panel, settings: Evaluate, seed: int) -> list[Cell]:
    """For each state one target of each domain, seen through references of each domain: a pure function of the seed."""
    made = []
    for number, state in enumerate(panel.states):
        orders = {domain: _shuffled(state, domain, seed) for domain in state.domains}
        for order in orders.values():
            for seen in orders.values():
                references = tuple(view for view in seen if view != order[-1])[: max(settings.references)]
                if references:
                    made.append(Cell(number, order[-1], references))
    return made


def _shuffled(state: State, domain: str, seed: int) -> list[int]:
    """Numbers of the views of a domain; the last one is its target."""
    numbers = [number for number, view in enumerate(state.views) if view.domain == domain]
    rng(seed, "evaluate", "cells", state.state_id, domain).shuffle(numbers)
    return numbers


def target(panel: Panel, cell: Cell) -> View:
    return panel.states[cell.state].views[cell.target]


def references(panel: Panel, cell: Cell, count: int) -> tuple[View, ...]:
    """The first `count`, or all where there are fewer."""
    return tuple(panel.states[cell.state].views[number] for number in cell.references[:count])


def hiding_cells(panel: Panel, attribute: str, count: int, seed: int) -> list[Cell]:
    """Cells whose first reference hides what the target shows of an attribute. Of the other count - 1 references one at
    least shows it, and all where enough views do. What somebody does not wear does not count: whoever sees nothing
    guesses it. A state gives as many as `cells` takes of it, if its views can make them.
    """
    classes, column, made = panel.attributes[attribute], list(panel.attributes).index(attribute), []
    for number, state in enumerate(panel.states):
        labels = panel.labels[number][:, column].tolist()
        orders = {domain: _shuffled(state, domain, seed) for domain in state.domains}
        targets = [
            [view for view in order if labels[view] >= 0 and classes[labels[view]] != NONE] for order in orders.values()
        ]
        for shown in filter(None, targets):
            for order in orders.values():
                blind = [view for view in order if labels[view] == HIDDEN]
                clear = [view for view in order if labels[view] >= 0 and view != shown[-1]]
                if blind and clear and count > 1:
                    made.append(Cell(number, shown[-1], (blind[0], *clear, *blind[1:])[:count]))
    return made


@dataclass(frozen=True)
class Truth:
    """What is known of n cells, a row for each. labels, rivals: [n, A], what the target shows, and the rival's look;
    people: [n]; relation: [n] of Relation; pairs: [n] of (domain of the references, domain of the target).
    """

    attributes: Mapping[str, Sequence[str]]
    labels: Tensor
    rivals: Tensor
    people: Tensor
    relations: tuple[Relation, ...]
    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, panel: Panel, chosen: Sequence[Cell]) -> "Truth":
        looks = panel.looks()
        return cls(
            attributes=panel.attributes,
            labels=torch.stack([panel.labels[cell.state][cell.target] for cell in chosen]),
            rivals=looks[[panel.rivals[cell.state] for cell in chosen]],
            people=torch.tensor([panel.people[cell.state] for cell in chosen]),
            relations=tuple(panel.relations[cell.state] for cell in chosen),
            pairs=tuple((references(panel, cell, 1)[0].domain, target(panel, cell).domain) for cell in chosen),
        )

    def __len__(self) -> int:
        return len(self.people)

    @property
    def state_columns(self) -> list[int]:
        return [place for place, name in enumerate(self.attributes) if name not in VIEW_ATTRIBUTES]

    def pick(self, rows: Sequence[int]) -> "Truth":
        rows = list(rows)
        return Truth(
            self.attributes, self.labels[rows], self.rivals[rows], self.people[rows],
            tuple(self.relations[row] for row in rows), tuple(self.pairs[row] for row in rows),
        )  # fmt: skip

"""The arms: what stands in the prompt for the person. All draw the same cells with the same noise."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harald.config import Config, Point
from harald.data.images import load_picture, within_pixels
from harald.determinism import key
from harald.encoder.model import PersonEncoder
from harald.evaluation.drawing import Request
from harald.evaluation.override import Override
from harald.evaluation.panel import Cell, Panel, references, target
from harald.records import View

OURS, NOTHING, WORDS, MEAN = "ours", "no tokens", "description", "mean tokens"
IDENTITY, OTHER, INVERSION, REAL = "identity-only tokens", "another person's tokens", "textual inversion", "real views"
REFINED = "ours, refined"
ARMS = (OURS, REFINED, REAL, WORDS, INVERSION, IDENTITY, OTHER, MEAN, NOTHING)


def without(group: str) -> str:
    """Name of ours with a group of tokens dropped."""
    return f"without {group}"


def override_of(arm: str) -> str:
    """Name of an arm's pictures with a wish in the prompt."""
    return f"override, {arm}"


@dataclass(frozen=True)
class Asked:
    """An arm's pictures. rows: numbers of its cells (an arm may leave cells out); requests: one for each."""

    rows: tuple[int, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Hiding:
    """Pictures of the same cells: ours from all their references, and from the first one alone, which hides something
    that the target shows.
    """

    cells: tuple[Cell, ...]
    many: Asked
    one: Asked


class Asking:
    """Makes requests for the cells of a panel."""

    def __init__(self, panel: Panel, cells: Sequence[Cell], config: Config):
        self.panel, self.cells, self.config = panel, cells, config

    def silent(self, rows: Sequence[int], names: Sequence[str], point: Point) -> Asked:
        """The target's prompt, silent about the state. names: tokens of each row's cell, empty for none."""
        texts = [self._view(row).person_prompt for row in rows]
        return self._asked(rows, texts, names, point)

    def described(self) -> Asked:
        """The target's full prompt, where it has words for the person."""
        rows = [row for row in range(len(self.cells)) if "<person" not in self._view(row).prompt]
        return self._asked(rows, [self._view(row).prompt for row in rows], [""] * len(rows), "output")

    def overridden(self, wishes: Sequence[Override | None], names: Sequence[str], point: Point) -> Asked:
        """The silent prompt with each cell's wish. names: for every cell."""
        rows = [row for row, wish in enumerate(wishes) if wish]
        texts = [wish.text for wish in wishes if wish]
        return self._asked(rows, texts, [names[row] for row in rows], point)

    def _asked(self, rows: Sequence[int], texts: Sequence[str], names: Sequence[str], point: Point) -> Asked:
        made = []
        for row, text, name in zip(rows, texts, names, strict=True):
            view, state = self._view(row), self.panel.states[self.cells[row].state]
            seed = key(self.config.seed, "evaluate", "noise", state.state_id, view.name)
            made.append(Request(view.domain, point if name else "output", text, name, seed))
        return Asked(tuple(rows), tuple(made))

    def _view(self, row: int) -> View:
        return target(self.panel, self.cells[row])


def references_name(panel: Panel, cell: Cell, count: int) -> str:
    """The same for cells that see the same references."""
    views = references(panel, cell, count)
    return "/".join([panel.states[cell.state].state_id, *(view.name for view in views)])


def others(panel: Panel) -> list[int]:
    """For each state the next one of another person (itself where all are one person)."""
    count = len(panel.states)
    turns = [[(number + step) % count for step in range(1, count)] for number in range(count)]
    return [
        next((other for other in turn if panel.people[other] != panel.people[number]), number)
        for number, turn in enumerate(turns)
    ]


@torch.no_grad()
def predicted(encoder: PersonEncoder, samples: Sequence[Sequence[View]], batch: int) -> list[Tensor]:
    """Tokens [K, d] on the CPU for each sample of references."""
    limit, made = encoder.config.max_pixels, []
    for start in range(0, len(samples), batch):
        part = samples[start : start + batch]
        made += encoder([[within_pixels(load_picture(v.image), limit) for v in views] for views in part]).cpu()
    return made

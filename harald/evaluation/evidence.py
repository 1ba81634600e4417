"""All that the tables are made from: the cells' truth, and what the judge says about every arm's pictures of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from harald.data.images import load_picture
from harald.evaluation.arms import Asked
from harald.evaluation.copy_paste import nearest
from harald.evaluation.drawing import Request
from harald.evaluation.override import Override
from harald.evaluation.panel import Cell, Panel, Truth, references, target
from harald.evaluation.seen import Seeing, Seen


@dataclass(frozen=True)
class Judged:
    """An arm's pictures. rows: numbers of its cells; seen: what the judge says, a row for each of them."""

    rows: tuple[int, ...]
    seen: Seen

    def only(self, rows: Sequence[int]) -> "Judged":
        """The part on some of its cells."""
        places = {row: place for place, row in enumerate(self.rows)}
        return Judged(tuple(rows), self.seen.pick([places[row] for row in rows]))


@dataclass(frozen=True)
class Compared:
    """What the judge says of the same cells, drawn from all their references and from the one that hides something."""

    truth: Truth
    many: Seen
    one: Seen


@dataclass(frozen=True)
class Evidence:
    """views: the judge on all real views of the panel, in order; real: on each cell's real target.

    arms: by name, without the real views. counts: ours by the number of references. wishes: for every cell, and
    overridden, by arm, the pictures that should show them. copies: arm -> [its rows] float64, how much nearer the drawn
    picture is to a reference than the real target is. dropped: ours without a group of tokens, by its name. hiding: by
    attribute, ours where one reference hides it.
    """

    panel: Panel
    cells: tuple[Cell, ...]
    truth: Truth
    views: Seen
    real: Judged
    arms: Mapping[str, Judged]
    counts: Mapping[int, Judged]
    wishes: tuple[Override | None, ...]
    overridden: Mapping[str, Judged]
    copies: Mapping[str, Tensor]
    dropped: Mapping[str, Judged] = field(default_factory=dict)
    hiding: Mapping[str, Compared] = field(default_factory=dict)


def real_targets(panel: Panel, cells: Sequence[Cell], views: Seen) -> Judged:
    """The judge on the targets' real views: what it can reach at best."""
    starts = [0]
    for state in panel.states:
        starts.append(starts[-1] + len(state.views))
    return Judged(tuple(range(len(cells))), views.pick([starts[cell.state] + cell.target for cell in cells]))


def judged(asked: Mapping[str, Asked], pictures: Mapping[Request, Image.Image], judge: Seeing) -> dict[str, Judged]:
    """Every picture is shown to the judge once, whatever arms use it."""
    order = {request: place for place, request in enumerate(pictures)}
    seen = judge.see(list(pictures.values()))
    return {name: Judged(one.rows, seen.pick([order[r] for r in one.requests])) for name, one in asked.items()}


def copied(
    panel: Panel, cells: Sequence[Cell], asked: Asked, pictures: Mapping[Request, Image.Image], count: int
) -> Tensor:
    """[rows]: likeness of the drawn picture to its nearest reference, minus that of the real target."""
    gaps = []
    for row, request in zip(asked.rows, asked.requests, strict=True):
        shown = [load_picture(view.image) for view in references(panel, cells[row], count)]
        real = load_picture(target(panel, cells[row]).image)
        gaps.append(nearest(pictures[request], shown) - nearest(real, shown))
    return torch.tensor(gaps, dtype=torch.float64)

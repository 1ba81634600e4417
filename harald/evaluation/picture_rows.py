"""Rows of pictures for the report: the worst cells first, then some at random, each picture with its score."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from harald import reporting
from harald.data.images import load_picture
from harald.determinism import rng
from harald.evaluation.arms import NOTHING, OURS, WORDS, Asked
from harald.evaluation.drawing import Request
from harald.evaluation.evidence import Evidence, Judged
from harald.evaluation.keep import rights
from harald.evaluation.panel import UNREADABLE, Truth, references, target
from harald.evaluation.seen import Seen
from harald.evaluation.twin import margins

SIDE, WORST, RANDOM = 160, 12, 6  # pixels of a picture; rows of each kind
SHOWN = (OURS, NOTHING, WORDS)


@dataclass(frozen=True)
class Picture:
    title: str
    uri: str
    score: str


@dataclass(frozen=True)
class PictureRow:
    title: str
    prompt: str
    pictures: tuple[Picture, ...]


def order(evidence: Evidence) -> list[int]:
    """Cells, the worst of ours first: by the share of the state that is kept, then by the margin over the rival.

    Cells that show nothing of a state come last.
    """
    ours = evidence.arms[OURS].seen
    kept = rights(ours, evidence.truth).nanmean(1).nan_to_num(2.0)
    lead = margins(ours, evidence.truth).nan_to_num(0.0)
    return sorted(range(len(evidence.truth)), key=lambda row: (kept[row].item(), lead[row].item(), row))


def picture_rows(
    evidence: Evidence, asked: Mapping[str, Asked], pictures: Mapping[Request, Image.Image], count: int, seed: int
) -> tuple[list[PictureRow], list[PictureRow]]:
    """The worst, and some of the rest at random. count: references of ours."""
    worst_first = order(evidence)
    rest = worst_first[WORST:]
    drawn = rng(seed, "evaluate", "shown").sample(rest, min(RANDOM, len(rest)))
    made = [[_row(evidence, asked, pictures, row, count) for row in part] for part in (worst_first[:WORST], drawn)]
    return made[0], made[1]


def _row(
    evidence: Evidence, asked: Mapping[str, Asked], pictures: Mapping[Request, Image.Image], row: int, count: int
) -> PictureRow:
    cell, panel, truth = evidence.cells[row], evidence.panel, evidence.truth.pick([row])
    view = target(panel, cell)
    shown = [
        Picture(f"reference {number}", reporting.embed_file(seen.image, SIDE), "")
        for number, seen in enumerate(references(panel, cell, count), 1)
    ]
    for name in SHOWN:
        if name in asked and row in asked[name].rows:
            request = asked[name].requests[asked[name].rows.index(row)]
            shown.append(_picture(name, pictures[request], evidence.arms[name], row, truth))
    shown.append(_picture("real view", load_picture(view.image), evidence.real, row, truth))
    pair, relation = evidence.truth.pairs[row], evidence.truth.relations[row]
    title = f"{panel.states[cell.state].state_id}, {pair[0]} → {pair[1]}, rival: {relation}"
    return PictureRow(title, view.person_prompt, tuple(shown))


def _picture(title: str, picture: Image.Image, arm: Judged, row: int, truth: Truth) -> Picture:
    return Picture(title, reporting.embed(picture, SIDE), says(arm.only([row]).seen, truth))


def says(seen: Seen, truth: Truth) -> str:
    """'3 of 4 kept; beard none, not full; margin 2.1' for one cell; empty where the target shows nothing."""
    right = rights(seen, truth)[0]
    shown = ~right.isnan()
    if not shown.any():
        return ""
    names, wrong = list(truth.attributes), []
    for place, column in enumerate(truth.state_columns):
        if right[place] == 0:
            classes, said = truth.attributes[names[column]], int(seen.said[0, column])
            found = classes[said] if said >= 0 else "unreadable" if said == UNREADABLE else "hidden"
            wrong.append(f"{names[column]} {found}, not {classes[int(truth.labels[0, column])]}")
    parts = [f"{int(right[shown].sum())} of {int(shown.sum())} kept", *wrong]
    margin = margins(seen, truth)[0]
    return "; ".join([*parts, *([] if margin.isnan() else [f"margin {margin:.1f}"])])

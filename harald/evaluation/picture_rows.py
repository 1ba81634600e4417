"""Rows of pictures for the report: the worst cells first, then some at random, each picture with its score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from harald import reporting
from harald.data.images import load_picture
from harald.determinism import rng
from harald.evaluation.arms import ARMS, OURS, Asked, override_of
from harald.evaluation.drawing import Request
from harald.evaluation.evidence import Evidence
from harald.evaluation.keep import rights
from harald.evaluation.override import Override
from harald.evaluation.panel import UNREADABLE, Truth, references, target
from harald.evaluation.seen import Seen
from harald.evaluation.twin import margins

SIDE, WORST, RANDOM = 160, 12, 6  # pixels of a picture; rows of each kind


@dataclass(frozen=True)
class Picture:
    """kind: what the page tells apart."""

    kind: Literal["reference", "ours", "control"]
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
    """The worst, and some of the rest at random: references | ours, and with a wish | every other arm. asked: by the
    names of `Experiment.everything`; count: references of ours.
    """
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
        Picture("reference", f"reference {number}", reporting.embed_file(seen.image, SIDE), "")
        for number, seen in enumerate(references(panel, cell, count), 1)
    ]

    def drawn(name: str) -> Image.Image | None:
        rows = asked[name].rows if name in asked else ()
        return pictures[asked[name].requests[rows.index(row)]] if row in rows else None

    for name in ARMS:
        if picture := drawn(name):
            shown.append(_picture(name, picture, says(evidence.arms[name].only([row]).seen, truth)))
        wish = evidence.wishes[row]
        if name == OURS and wish and (picture := drawn(override_of(OURS))):
            shown.append(_picture(OURS, picture, granted(evidence.overridden[OURS].only([row]).seen, wish, truth)))
    shown.append(_picture("real view", load_picture(view.image), says(evidence.real.only([row]).seen, truth)))
    pair, relation = evidence.truth.pairs[row], evidence.truth.relations[row]
    title = f"{panel.states[cell.state].state_id}, {pair[0]} → {pair[1]}, rival: {relation}"
    return PictureRow(title, view.person_prompt, tuple(shown))


def _picture(title: str, picture: Image.Image, score: str) -> Picture:
    return Picture("ours" if title == OURS else "control", title, reporting.embed(picture, SIDE), score)


def granted(seen: Seen, wish: Override, truth: Truth) -> str:
    """'with square glasses: drawn', or what is there instead."""
    said, classes = int(seen.said[0, list(truth.attributes).index(wish.attribute)]), truth.attributes[wish.attribute]
    return f"{wish.said}: {'drawn' if said == wish.wanted else f'{named(said, classes)} instead'}"


def named(said: int, classes: Sequence[str]) -> str:
    return classes[said] if said >= 0 else "unreadable" if said == UNREADABLE else "hidden"


def says(seen: Seen, truth: Truth) -> str:
    """'3 of 4 kept; beard none, not full; margin 2.1' for one cell; empty where the target shows nothing."""
    right = rights(seen, truth)[0]
    shown = ~right.isnan()
    if not shown.any():
        return ""
    names, wrong = list(truth.attributes), []
    for place, column in enumerate(truth.state_columns):
        if right[place] == 0:
            classes = truth.attributes[names[column]]
            found = named(int(seen.said[0, column]), classes)
            wrong.append(f"{names[column]} {found}, not {classes[int(truth.labels[0, column])]}")
    parts = [f"{int(right[shown].sum())} of {int(shown.sum())} kept", *wrong]
    margin = margins(seen, truth)[0]
    return "; ".join([*parts, *([] if margin.isnan() else [f"margin {margin:.1f}"])])

"""Pictures to look at beside the numbers: kept in the run's folder, so that a later part's report shows them too."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from harald.evaluation.judge import Reading
from harald.generation.draw import grid
from harald.proving_ground.measure.drawing import as_image
from harald.proving_ground.measure.scores import agreement, differences
from harald.proving_ground.measure.views import Views
from harald.runs import write_json

FOLDER = "sheets"
SHOWN = 12  # of each group


@dataclass(frozen=True)
class Shown:
    """A picture's file, below the sheets' folder, and what stands under it."""

    file: str
    caption: str


@dataclass(frozen=True)
class Sheet:
    title: str
    says: str
    pictures: tuple[Shown, ...]


def reconstructions(folder: Path, views: Views, others: Tensor, errors: Tensor) -> None:
    """Renders beside what the VAE makes of them: the first (of a shuffled order) and the worst.

    others: uint8 [n, S, S, 3]; errors: [n], mean squares. The views are to come in random order.
    """
    decibel = -10 * errors.clamp(min=1e-12).log10()
    groups = (("at random", list(range(len(views)))), ("the worst", errors.argsort(descending=True).tolist()))
    made = []
    for name, order in groups:
        rows = [
            (views.images[i], others[i], f"{decibel[i]:.1f} dB. {views.prompts[i].split(', ')[0]}")
            for i in order[:SHOWN]
        ]
        says = "Left the render, right its reconstruction by the VAE."
        made.append(_written(folder, f"Reconstructions, {name}", says, f"vae_{name.split()[-1]}", rows))
    _save(folder, "vae", made)


def drawings(folder: Path, views: Views, drawn: Tensor, reading: Reading) -> None:
    """Drawn pictures beside the renders of the same views: the first, and those that the judge likes least.

    drawn: uint8 [n, S, S, 3]. The views are to come in random order.
    """
    liked = agreement(reading, views.labels)
    groups = (("at random", list(range(len(views)))), ("the worst", liked.argsort().tolist()))
    made = []
    for name, order in groups:
        rows = []
        for i in order[: 2 * SHOWN]:
            wrong = differences(reading.index[i], views.labels[i])
            rows.append(
                (views.images[i], drawn[i], views.prompts[i] + (f". NOT AS DESCRIBED: {wrong}" if wrong else ""))
            )
        says = "Left the render of the view, right what the base model draws from its text."
        made.append(_written(folder, f"Drawn from the text, {name}", says, f"base_{name.split()[-1]}", rows))
    _save(folder, "base", made)


def stored(folder: Path) -> list[Sheet]:
    """The sheets of all parts that this run has measured."""
    found = []
    for part in ("vae", "base"):
        file = folder / FOLDER / f"{part}.json"
        for sheet in json.loads(file.read_text()) if file.exists() else []:
            pictures = tuple(Shown(**picture) for picture in sheet["pictures"])
            found.append(Sheet(sheet["title"], sheet["says"], pictures))
    return found


def _written(folder: Path, title: str, says: str, stem: str, rows: list[tuple[Tensor, Tensor, str]]) -> Sheet:
    (folder / FOLDER).mkdir(exist_ok=True)
    shown = []
    for number, (left, right, caption) in enumerate(rows):
        file = f"{stem}_{number:02d}.png"
        side_by_side(left, right).save(folder / FOLDER / file)
        shown.append(Shown(file, caption))
    return Sheet(title, says, tuple(shown))


def side_by_side(left: Tensor, right: Tensor) -> Image.Image:
    """Both uint8 [S, S, 3]."""
    assert left.dtype == right.dtype == torch.uint8, "pictures as they are shown"
    return grid([[as_image(left), as_image(right)]], left.shape[0])


def _save(folder: Path, part: str, sheets: list[Sheet]) -> None:
    write_json(folder / FOLDER / f"{part}.json", [asdict(sheet) for sheet in sheets])

"""The report of an evaluation as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harald import reporting
from harald.config import Config
from harald.evaluation.arms import ARMS
from harald.evaluation.panel import VIEW_ATTRIBUTES
from harald.evaluation.picture_rows import PictureRow
from harald.evaluation.result import Result
from harald.evaluation.tables import ALIKE, BESIDE, COPIED, INVENTED, KEPT, OVERRIDE, SHARE, TWIN

COLUMNS = (TWIN, SHARE, KEPT, INVENTED, OVERRIDE, BESIDE, ALIKE, COPIED)


@dataclass(frozen=True)
class Costs:
    """Seconds for one person: one pass of the encoder, and Textual Inversion of so many steps (None: it is off)."""

    ours: float
    inversion: float | None
    steps: int

    @property
    def share(self) -> float | None:
        return None if self.inversion is None else self.ours / self.inversion


def report(
    folder: Path, result: Result, rows: Sequence[Mapping[str, Any]], costs: Costs,
    shown: tuple[Sequence[PictureRow], Sequence[PictureRow]], config: Config, facts: Mapping[str, Any],
) -> str:  # fmt: skip
    """rows: of the bars; shown: the worst cells and some at random."""
    return reporting.render(
        "evaluate",
        run=folder.name,
        facts=facts,
        seed=config.seed,
        settings=config.evaluate,
        drawing=config.generate,
        result=result,
        arms=[name for name in ARMS if name in result.arms],
        columns=[name for name in COLUMNS if any(name in row for row in result.arms.values())],
        views=VIEW_ATTRIBUTES,
        rows=rows,
        costs=costs,
        shown=[("The worst of ours", shown[0]), ("At random", shown[1])],
        random_weights=config.models.base.recipe.startswith("tiny_"),
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )

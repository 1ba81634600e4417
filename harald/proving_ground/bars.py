"""What the small world has to reach, and the rows that say whether it does."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from harald.evaluation.accuracy import Score
from harald.evaluation.bar import Bar, Origin, finite

PARTS = ("judge", "vae", "base", "faces", "speed")  # the size is measured every time
OPTIONAL = ("face_model",)  # only where --only names it: it needs an extra
SIZE = "size"
FACES, SECONDS, MEGABYTES = (
    "faces: eyes, nose and mouth in place",
    "speed: seconds for one picture",
    "size: all weights",
)
EXPRESSIONS = "judge: kinds of expression"
PSNR = "vae: PSNR"


ACCURACY, RATIO, POINTS = "balanced accuracy", "share of the judge's ceiling", "points of balanced accuracy"
_PLAIN = ("hair", "hair_colour", "beard", "headwear", "makeup")
BARS: dict[str, tuple[Bar, ...]] = {
    "judge": (
        *(Bar(f"judge: {name}", 0.95, ACCURACY) for name in (*_PLAIN, "glasses")),
        *(Bar(f"judge: {name}", 0.92, ACCURACY) for name in ("earrings", "necklace")),
        *(Bar(f"judge: {name}", 0.97, ACCURACY) for name in ("scene", "pose", "domain")),
        Bar("judge: expression", 0.92, ACCURACY),
        Bar(EXPRESSIONS, 8, "classes"),
    ),
    "vae": (
        Bar(PSNR, 29.0, "dB"),
        Bar("vae: loss of glasses", 2.0, POINTS, "<="),
        *(Bar(f"vae: loss of {name}", 5.0, POINTS, "<=") for name in ("earrings", "necklace")),
    ),
    "base": (
        *(Bar(f"base: {name}", 0.95, RATIO) for name in _PLAIN),
        Bar("base: glasses", 0.92, ACCURACY),
        *(Bar(f"base: {name}", 0.80, ACCURACY) for name in ("earrings", "necklace")),
        *(Bar(f"base: {name}", 0.95, RATIO) for name in ("scene", "pose", "domain")),
        Bar("base: expression", 0.85, RATIO),
    ),
    "faces": (Bar(FACES, 0.95, "share of the pictures"),),
    "speed": (Bar(SECONDS, 4.0, "s on two CPU cores, with guidance", "<="),),
    "face_model": (),
    SIZE: (Bar(MEGABYTES, 60.0, "MB (1e6 bytes)", "<="),),
}


@dataclass(frozen=True)
class Row:
    """One value with its 95 % interval; JSON-ready. Figures have no bar: bar, rule and met are None.

    value, low, high: None where nothing could be measured; the note says why. count: pictures (or pairs of states).
    """

    name: str
    part: str
    unit: str
    bar: float | None
    rule: str | None
    value: float | None
    low: float | None
    high: float | None
    count: int
    met: bool | None
    note: str
    command: str
    commit: str
    device: str


def rows(part: str, measured: Mapping[str, Score], origin: Origin, note: str = "", unit: str = "") -> list[Row]:
    """A row for every bar of the part, measured or not; then a figure for every other measured name.

    note: why values are missing. unit: of the figures.
    """
    bars = {bar.name: bar for bar in BARS[part]}
    empty = Score(math.nan, math.nan, math.nan, 0)
    made = []
    for name in [*bars, *(name for name in measured if name not in bars)]:
        bar, score = bars.get(name), measured.get(name, empty)
        value = finite(score.value)
        made.append(
            Row(
                name=name, part=part, unit=bar.unit if bar else unit,
                bar=bar.limit if bar else None, rule=bar.rule if bar else None,
                value=value, low=finite(score.low), high=finite(score.high), count=score.count,
                met=bar.is_met(value) if bar else None, note="" if name in measured else note, **asdict(origin),
            )
        )  # fmt: skip
    return made


def noted(made: Iterable[Row], note: str) -> list[Row]:
    """The rows with a note of how they were measured."""
    return [replace(row, note=note) for row in made]


def merged(earlier: Iterable[Row], fresh: Iterable[Row]) -> list[Row]:
    """Fresh rows in the place of earlier ones of the same name; in the order of BARS, then the figures.

    What a machine could not measure (seconds on a GPU) leaves what another one measured. Not so the faces: a sheet that
    was drawn anew is to be counted anew.
    """
    found = {row.name: row for row in earlier}
    for row in fresh:
        before = found.get(row.name)
        if row.value is None and before is not None and before.value is not None and row.part != "faces":
            continue
        found[row.name] = row
    known = {bar.name: place for place, bar in enumerate(bar for part in BARS.values() for bar in part)}
    parts = list(BARS)
    return sorted(found.values(), key=lambda row: (known.get(row.name, len(known)), parts.index(row.part)))


def as_json(made: Iterable[Row], origin: Origin, **facts: Any) -> dict[str, Any]:
    """The file's content: facts of the run, rows with a bar, rows without."""
    table = [asdict(row) for row in made]
    return {
        **asdict(origin),
        **facts,
        "bars": [row for row in table if row["bar"] is not None],
        "figures": [row for row in table if row["bar"] is None],
    }


def from_json(content: Mapping[str, Any]) -> list[Row]:
    """The rows of `as_json`."""
    names = [field.name for field in fields(Row)]
    return [Row(**{name: row[name] for name in names}) for row in (*content["bars"], *content["figures"])]

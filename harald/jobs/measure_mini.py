"""Does the small world reach its bars? Every value with its interval, on persons that no training has seen."""

import json
from pathlib import Path
from typing import Any

from harald import reporting, runs
from harald.config import Config
from harald.errors import ConfigError, did_you_mean
from harald.jobs.pretrain_mini import SHIPPED
from harald.proving_ground.bars import BARS, OPTIONAL, PARTS, SIZE, Row, as_json, from_json, merged, rows
from harald.proving_ground.measure import origin, sheets
from harald.proving_ground.measure.run import REAL_SHEET, SHEET, SHEET_PICTURES, Measurement
from harald.runtime import Runtime

RESULT = "proving_ground.json"


def run(
    runtime: Runtime, config: Config, run_name: str, weights: str = "", only: str = "", states: int = 128,
    pictures: int = 512, faces_in_place: int = -1, real_faces_in_place: int = -1, into: str = "",
) -> dict:  # fmt: skip
    """Measure parts of bars.PARTS and OPTIONAL (only: comma-separated; empty: PARTS), beside what the run has already.

    weights: a folder of the small models; empty: the package's. states, pictures: held-out states, drawn pictures.
    faces_in_place: as counted on the run's faces.png; real_faces_in_place: on its faces_real.png, the yardstick.
    into: where a copy of the result goes.
    """
    parts = chosen(only)
    source = Path(weights) if weights else SHIPPED
    counts = faces_in_place, real_faces_in_place
    check(config, source, states, pictures, counts)
    made = origin.digest(source)
    folder = runs.open_run(runtime, "measure_mini", run_name, config, weights=made, states=states, pictures=pictures)
    here = origin.here()
    measurement = Measurement(config, source, folder, states, pictures, counts, here)
    table = [row for part in BARS for row in rows(part, {}, here, f"not measured yet: --only {part}")]
    if (folder / RESULT).exists():
        table = merged(table, from_json(json.loads((folder / RESULT).read_text())))
    for part in (*parts, SIZE):
        table = merged(table, measurement.part(part))
        content = as_json(table, here, seed=config.seed, weights=made, states=states, pictures=pictures)
        runs.write_json(folder / RESULT, content)  # after each part: what is measured stays
        runtime.commit()
    if into:
        runs.write_json(Path(into), content)
    runs.write_text(folder / "report.html", report(folder, table, content))
    short = [row.name for row in table if row.met is False]
    return {
        "run": folder.name,
        "met": sum(row.met is True for row in table),
        "short": short,
        "result": str(folder / RESULT),
        "report": str(folder / "report.html"),
    }


def chosen(only: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, in the order of PARTS and OPTIONAL. Raises ConfigError."""
    known = (*PARTS, *OPTIONAL)
    names = [name.strip() for name in only.split(",")] if only else list(PARTS)
    for name in names:
        if name not in known:
            raise ConfigError(f"--only names the part {name!r}", did_you_mean(name, known))
    return tuple(part for part in known if part in names)


def check(config: Config, source: Path, states: int, pictures: int, faces_in_place: tuple[int, int]) -> None:
    """Raises ConfigError for what cannot be measured."""
    if config.pretrain is None:
        raise ConfigError(f"preset {config.preset!r} has no small models", "use --preset mini")
    if not source.is_dir():
        raise ConfigError(f"the folder of weights {source} does not exist", "name a folder with mini-qwen-image in it")
    if states < 1:
        raise ConfigError(f"--states is {states}", "use 1 or more")
    if not 1 <= pictures <= states * config.pretrain.views:
        raise ConfigError(
            f"--pictures is {pictures}, and {states} states have {states * config.pretrain.views} views",
            "draw at least one picture and at most one of each view, or raise --states",
        )
    for flag, sheet, count in zip(("", "real-"), (SHEET, REAL_SHEET), faces_in_place, strict=True):
        if not -1 <= count <= min(SHEET_PICTURES, pictures):
            raise ConfigError(
                f"--{flag}faces-in-place is {count}, the sheet has {min(SHEET_PICTURES, pictures)} pictures",
                f"count the pictures of {sheet}",
            )


def report(folder: Path, table: list[Row], content: dict[str, Any]) -> str:
    shown = [
        (sheet, [(reporting.embed_file(folder / sheets.FOLDER / p.file), p.caption) for p in sheet.pictures])
        for sheet in sheets.stored(folder)
    ]
    return reporting.render(
        "measure_mini",
        run=folder.name,
        facts=content,
        parts=[(part, [row for row in table if row.part == part and row.bar is not None]) for part in BARS],
        figures=[row for row in table if row.bar is None and row.value is not None],
        origins=sorted({(row.device, row.commit, row.command) for row in table if row.value is not None}),
        sheets=shown,
        faces=[reporting.embed_file(folder / name) for name in (SHEET, REAL_SHEET) if (folder / name).exists()],
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )

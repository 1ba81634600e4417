"""Rows of measured bars in a result file that several commands share."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harald.proving_ground.measure import origin
from harald.runs import write_json


def write(file: Path, fresh: list[dict[str, Any]], seed: int) -> None:
    """Fresh rows, with where they come from, take the place of rows of the same name; rows of other commands stay."""
    measured = {**asdict(origin.here()), "seed": seed}
    earlier = json.loads(file.read_text())["bars"] if file.exists() else []
    names = {row["name"] for row in fresh}
    kept = [row for row in earlier if row["name"] not in names]
    write_json(file, {**measured, "bars": kept + [{**row, **measured} for row in fresh]})

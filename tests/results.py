"""Rows of measured bars in a result file that several commands share, and what the commands themselves share."""

import argparse
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from harald.proving_ground.measure import origin
from harald.runs import write_json

log = logging.getLogger(__name__)


def write(file: Path, fresh: list[dict[str, Any]], seed: int) -> None:
    """Fresh rows, with where they come from, take the place of rows of the same name; rows of other commands stay."""
    measured = {**asdict(origin.here()), "seed": seed}
    earlier = json.loads(file.read_text())["bars"] if file.exists() else []
    names = {row["name"] for row in fresh}
    kept = [row for row in earlier if row["name"] not in names]
    write_json(file, {**measured, "bars": kept + [{**row, **measured} for row in fresh]})


def counted(counts: Mapping[str, tuple[int, int]], note: str) -> list[dict[str, Any]]:
    """A row for each name -> (what went wrong, of how many trials): nothing may.

    low, high: 95 % interval (Clopper and Pearson) of the count, had there been as many trials again.
    """
    made = []
    for name, (bad, trials) in counts.items():
        interval = binomtest(bad, trials).proportion_ci() if trials else None
        made.append({
            "name": name, "bar": 0, "rule": "<=", "value": bad, "count": trials, "met": bad == 0 and trials > 0,
            "low": round(interval.low * trials, 3) if interval else None,
            "high": round(interval.high * trials, 3) if interval else None,
            "note": f"{note}; count: trials",
        })  # fmt: skip
    return made


def flags(description: str, jobs: int) -> argparse.ArgumentParser:
    """Of a soak."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--jobs", type=int, default=jobs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, help="result file; rows of the same name are replaced")
    return parser


def report(made: list[dict[str, Any]], problems: list[str], into: Path | None, seed: int) -> int:
    """Print and write what a soak has found. Returns the exit code."""
    for problem in problems:
        print(problem)
    print(json.dumps(made, indent=1))
    if into:
        write(into, made, seed)
    return 0 if all(row["met"] for row in made) and not problems else 1


def compared(values: Iterable[tuple[str, float, str, float]], **facts: Any) -> list[dict[str, Any]]:
    """A row for each (name, bar, rule, value). low and high are None: everything is counted, nothing is estimated."""
    return [
        {
            "name": name, "bar": bar, "rule": rule, "value": value, "low": None, "high": None,
            "met": value >= bar if rule == ">=" else value <= bar, **facts,
        }
        for name, bar, rule, value in values
    ]  # fmt: skip


def conclude(made: list[dict[str, Any]], into: Path | None, seed: int) -> None:
    """Log the rows and write them. Raises SystemExit if one is not met."""
    for row in made:
        met = "met" if row["met"] else "NOT MET"
        log.info("%s: %s (bar %s %s) %s", row["name"], row["value"], row["rule"], row["bar"], met)
    if into:
        write(into, made, seed)
    if not all(row["met"] for row in made):
        raise SystemExit(1)

"""All runs of all jobs, with what they do, have done and have cost. Only reads."""

import logging
import time
from pathlib import Path
from typing import Any

from harald import runs
from harald.config import Config
from harald.running import price, status
from harald.running.lease import Note
from harald.runtime import Runtime

log = logging.getLogger(__name__)

HEADS = ("job", "run", "state", "step", "score", "time", "cost", "age", "error")
LOST = "lost"  # it does not say that it ended, and gives no sign of life


def run(runtime: Runtime, config: Config, run_name: str, job: str = "") -> dict:
    """job, run_name: show only these. Newest first. Raises ConfigError for what cannot be the name of one."""
    jobs = runs.safe_name(job, "--job") if job else "*"
    names = runs.safe_name(run_name, "--run-name") if run_name else "*"
    folders = [path.parent for path in runtime.output.glob(f"{jobs}/{names}/{runs.CONFIG}")]
    rows = sorted((describe(runtime, folder) for folder in folders), key=lambda row: row["age"])
    log.info("%d runs under %s\n%s", len(rows), runtime.output, table(rows))
    return {"runs": rows}


def describe(runtime: Runtime, folder: Path) -> dict[str, Any]:
    """JSON-ready. age: seconds since the run last said something; None for what is not known."""
    job, found = folder.parent.name, status.read(folder)
    if found is None:
        age = time.time() - (folder / runs.CONFIG).stat().st_mtime
        return {"job": job, "run": folder.name, "state": None, "age": round(age, 1)}
    held = Note.parse(runtime.fetch(folder / runs.LEASE))
    gone = held is None or held.is_silent(runtime.pace.silence)
    said = max(found.updated, held.renewed if held else 0.0)
    return {
        "job": job,
        "run": folder.name,
        "state": LOST if found.state == "running" and gone else found.state,
        "done": found.done,
        "total": found.total,
        "unit": found.unit,
        "score": found.score,
        "score_name": found.score_name,
        "seconds": found.seconds,
        "cost": found.cost,
        "age": round(max(0.0, time.time() - said), 1),
        "error": found.error,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Aligned columns; '-' for what is not known or does not apply."""
    lines = [HEADS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    age = price.duration(row["age"])
    if row["state"] is None:
        return (row["job"], row["run"], "-", "-", "-", "-", "-", age, "")
    step = f"{row['done']}/{row['total']} {row['unit']}s" if row["total"] else "-"
    score = "-" if row["score"] is None else f"{row['score_name']} {row['score']:.4g}"
    cost = price.money(row["cost"]) or "-"
    return (
        row["job"], row["run"], row["state"], step, score, price.duration(row["seconds"]), cost, age, row["error"],
    )  # fmt: skip

"""What was measured as rows of a result file, and as tables in a page of the documentation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harald import runs
from harald.benchmark.bars import BARS, NOTHING
from harald.benchmark.bench import Ratio
from harald.config import PRICES_AS_OF
from harald.evaluation.bar import Bar, Origin, finite

BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
PAGE = Path("hardware.md")


def bar_rows(
    found: Mapping[Bar, Ratio], origin: Origin, seed: int, notes: Mapping[Bar, str] | None = None
) -> list[dict[str, Any]]:
    """notes: what a bar was measured on."""
    rows = []
    for bar in BARS:
        value, low, high = (finite(number) for number in found.get(bar, NOTHING))
        rows.append({
            "name": bar.name, "bar": bar.limit, "rule": bar.rule, "unit": bar.unit, "value": value, "low": low,
            "high": high, "met": bar.is_met(value),
            "note": (notes or {}).get(bar, "") if value is not None else "not measured",
            **asdict(origin), "seed": seed,
        })  # fmt: skip
    return rows


def merge_into(
    file: Path, fresh: Sequence[Mapping[str, Any]], origin: Origin, seed: int, texts: Mapping[str, str]
) -> None:
    """Fresh rows in the place of those of the same name and seed; what was not measured now leaves what was. texts: of
    parts, the last of each kept beside the rows and, where the page is in the folder above, written there between its
    marks.
    """
    before = json.loads(file.read_text()) if file.exists() else {}
    rows = {_key(row): row for row in before.get("bars", [])}
    for row in fresh:
        if row["value"] is not None or _key(row) not in rows:
            rows[_key(row)] = dict(row)
    order = {bar.name: place for place, bar in enumerate(BARS)}
    table = sorted(rows.values(), key=lambda row: (row["seed"], order.get(row["name"], len(order))))
    parts = before.get("parts", {}) | {name: {"text": text, **asdict(origin)} for name, text in texts.items()}
    runs.write_json(file, {**asdict(origin), "seed": seed, "bars": table, "parts": parts})
    page = file.resolve().parent.parent / PAGE
    if page.exists() and BEGIN in page.read_text():
        runs.write_text(page, between_marks(page.read_text(), page_text(table, parts)))


def _key(row: Mapping[str, Any]) -> tuple[str, int]:
    return row["name"], row["seed"]


def between_marks(page: str, text: str) -> str:
    """
    >>> print(between_marks(f"a {BEGIN}old{END} b", "new"))
    a <!-- benchmark:begin -->
    new
    <!-- benchmark:end --> b
    """
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"


def page_text(rows: Sequence[Mapping[str, Any]], parts: Mapping[str, Mapping[str, str]]) -> str:
    lines = ["| bar | wanted | measured | lowest to highest | met | seed | note |", "|---|---|---|---|---|---|---|"]
    known = {row["name"] for row in rows if row["value"] is not None}
    for row in rows:
        if row["value"] is None and row["name"] in known:
            continue  # measured with another seed, or said already
        known.add(row["name"])
        value = "not measured" if row["value"] is None else f"{row['value']:.4g} {row['unit']}"
        spread = "" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"
        wanted = f"{row['rule']} {row['bar']:g}"
        met, note = "yes" if row["met"] else "no", row["note"] if row["value"] is not None else ""
        lines.append(f"| {row['name']} | {wanted} | {value} | {spread} | {met} | {row['seed']} | {note} |")
    lines += ["", f"Prices are Modal's list prices of {PRICES_AS_OF}."]
    for name, part in sorted(parts.items()):
        commit = part["commit"][:12]
        lines += ["", f"### {name}", "", f"`{part['command']}` at {commit}, {part['device']}.", "", part["text"]]
    return "\n".join(lines)

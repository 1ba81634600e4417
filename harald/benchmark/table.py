"""Measured arms as rows: what everything took, and the bars that its ratios have to reach."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harald import runs
from harald.benchmark import drawing, training
from harald.benchmark.clock import Timing
from harald.evaluation.bar import Bar, Origin, finite

THROUGHPUT = Bar("training: samples/s against the plain loop, bfloat16", 3.0, "times")
THROUGHPUT_8 = Bar("training: samples/s against the plain loop, frozen weights in float8", 4.5, "times")
SHARE = Bar("training: share of the measured bfloat16 rate, nothing recomputed", 0.55, "share")
DETERMINISTIC = Bar("training: deterministic against not, time", 1.10, "times", "<=")
PERSON = Bar("picture: with a person against without, slowest number of references", 1.03, "times", "<=")
EDIT = Bar("picture: faster than the edit pipeline with 3 pictures", 5.0, "times")
EXACT = Bar("picture: exact, faster than the stock pipeline", 1.3, "times")
FAST = Bar("picture: float8, faster than the stock pipeline", 2.2, "times")
BARS = (THROUGHPUT, THROUGHPUT_8, SHARE, DETERMINISTIC, PERSON, EDIT, EXACT, FAST)
Ratio = tuple[float, float, float]  # of the medians; the smallest and the largest of a round
NOTHING: Ratio = (math.nan, math.nan, math.nan)


def ratio(slow: Timing | None, fast: Timing | None) -> Ratio:
    """How many times as long the first arm took."""
    if slow is None or fast is None or not slow.seconds or not fast.seconds:
        return NOTHING
    each = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return slow.median / fast.median, min(each), max(each)


def measured(timings: Mapping[str, Timing], flops: int, rate: float) -> dict[Bar, Ratio]:
    """timings: of the arms of `training` and `drawing`. flops: of a step of ours; rate: a second."""
    found = {
        THROUGHPUT: ratio(timings.get(training.PLAIN), timings.get(training.COMPILED)),
        THROUGHPUT_8: ratio(timings.get(training.PLAIN), timings.get(training.FLOAT8)),
        FAST: ratio(timings.get(drawing.STOCK), timings.get(drawing.FLOAT8)),
        DETERMINISTIC: ratio(timings.get(training.COMPILED), timings.get(training.LOOSE)),
        EXACT: ratio(timings.get(drawing.STOCK), timings.get(drawing.EXACT)),
        EDIT: ratio(timings.get(drawing.edit_arm(3)), timings.get(drawing.person_arm(3))),
    }
    step = timings.get(training.COMPILED)
    if step is not None and step.seconds:
        shares = sorted(flops / seconds / rate for seconds in step.seconds)
        found[SHARE] = (flops / step.median / rate, shares[0], shares[-1])
    persons = [t for name, t in timings.items() if name.startswith(drawing.PERSON_ARM) and t.seconds]
    if persons:
        found[PERSON] = ratio(max(persons, key=lambda t: t.median), timings.get(drawing.EXACT))
    return found


def bar_rows(found: Mapping[Bar, Ratio], origin: Origin, seed: int) -> list[dict[str, Any]]:
    rows = []
    for bar in BARS:
        value, low, high = (finite(number) for number in found.get(bar, NOTHING))
        rows.append({
            "name": bar.name, "bar": bar.limit, "rule": bar.rule, "unit": bar.unit, "value": value, "low": low,
            "high": high, "met": bar.is_met(value), "note": "" if value is not None else "not measured",
            **asdict(origin), "seed": seed,
        })  # fmt: skip
    return rows


def merge_into(file: Path, fresh: Sequence[Mapping[str, Any]], origin: Origin, seed: int) -> None:
    """Fresh rows in the place of those of the same name; what was not measured now leaves what was."""
    rows = {row["name"]: row for row in (json.loads(file.read_text())["bars"] if file.exists() else [])}
    for row in fresh:
        if row["value"] is not None or row["name"] not in rows:
            rows[row["name"]] = dict(row)
    runs.write_json(file, {**asdict(origin), "seed": seed, "bars": list(rows.values())})


def markdown(timings: Mapping[str, Timing], samples: int, rate: float) -> str:
    """samples: of a training step."""
    lines = ["| arm | median | fastest to slowest | a sample | peak memory |", "|---|---|---|---|---|"]
    for name, timing in timings.items():
        if not timing.seconds:
            lines.append(f"| {name} | failed: {timing.failed} | | | |")
            continue
        low, high = min(timing.seconds), max(timing.seconds)
        each = f"{1e3 * timing.median / samples:.1f} ms" if name in training.ARMS else ""
        lines.append(
            f"| {name} | {timing.median:.3f} s | {low:.3f} to {high:.3f} s | {each} | {timing.peak / 2**30:.1f} GiB |"
        )
    return "\n".join([*lines, "", f"Product of two matrices of 8,192 x 8,192: {rate / 1e12:.1f} TFLOP/s."])

"""What the project claims, as bars, and the rows that say whether they are met. Rows of several seeds can be merged."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harald import runs
from harald.errors import ConfigError
from harald.evaluation.accuracy import Score
from harald.evaluation.arms import IDENTITY, INVERSION, NOTHING, OURS, REAL
from harald.evaluation.bar import Bar, Origin, finite
from harald.evaluation.evidence import Evidence
from harald.evaluation.keep import UNMEASURED, domain_gap, state_gain
from harald.evaluation.result import Result
from harald.evaluation.tables import ALIKE, COPIED, GAINED, INVENTED, OVERRIDE, SHARE, TWIN

ENOUGH = 8  # cells of which a reference hides an attribute, for it to be compared
CHANCE, CEILING, BASE = "share, chance 0.5", "share of the judge's ceiling", "share of the base model without a person"
_SMALL = ("earrings", "necklace")
_PLAIN = ("hair", "hair_colour", "beard", "glasses", "headwear", "makeup")
COPY, GAIN = "copy-paste: drawn minus real", "one pass minus textual inversion"
COST, MORE = "one pass: seconds, as a share of textual inversion's", "four references minus the one that hides it"
GAPS = {f"same domain minus {a} → {b}": (a, b) for a, b in (("photo", "comic"), ("comic", "photo"))}
BLIND = "twin test, identity-only tokens"
BARS = (
    Bar("twin test", 0.98, CHANCE),
    Bar(BLIND, 0.60, CHANCE, "<="),
    *(Bar(f"state kept: {name}", 0.95, CEILING) for name in _PLAIN),
    *(Bar(f"state kept: {name}", 0.90, CEILING) for name in _SMALL),
    Bar("invented", 0.03, "share of what is not worn", "<="),
    Bar("override", 0.90, "share of the wishes"),
    *(Bar(f"prompt: {name}", 0.97, BASE) for name in ("scene", "expression", "pose", "domain")),
    *(Bar(name, 0.03, CEILING, "<=") for name in GAPS),
    Bar("identity against look-alikes", 0.90, CHANCE),
    Bar(COPY, 0.0, "structural similarity; the interval's lower end counts", "<="),
    Bar(GAIN, 0.0, "state kept"),
    Bar(COST, 1 / 1000, "share", "<="),
    Bar(MORE, 0.0, "share right; the attribute that gains least", ">"),
)


# Bars that need an arm, and what the others need.
_ARM = {BLIND: IDENTITY, GAIN: INVERSION, COST: INVERSION}
_NEEDS = {
    BLIND: "the judge cannot tell the looks apart on real views",
    GAIN: "textual inversion keeps no more of the state than no tokens do",
    "identity against look-alikes": "needs evaluate.look_alikes, and a judge that knows faces",
    MORE: f"nothing is hidden by one reference and shown by another one and the target in {ENOUGH} cells",
    **dict.fromkeys(GAPS, "needs pictures of both domains, and a judge that tells the looks apart in them"),
}


def measured(evidence: Evidence, result: Result, cost: float | None, seed: int) -> dict[str, Score]:
    """Name of a bar -> its value, as far as there is one. cost: seconds of ours over those of Textual Inversion."""
    ours, truth = evidence.arms[OURS].seen, evidence.truth
    told_apart = result.arms[REAL][TWIN].low > 0.5  # else every arm is at chance, and that says nothing
    table = {
        "twin test": result.arms[OURS][TWIN],
        BLIND: result.arms.get(IDENTITY, {}).get(TWIN, UNMEASURED) if told_apart else UNMEASURED,
        **{f"state kept: {name}": row[SHARE] for name, row in result.attributes.items()},
        "invented": result.arms[OURS][INVENTED],
        "override": result.arms[OURS].get(OVERRIDE, UNMEASURED),
        **{f"prompt: {name}": row["share"] for name, row in result.following.items()},
        **{name: domain_gap(ours, evidence.real.seen, truth, pair, seed) for name, pair in GAPS.items()},
        "identity against look-alikes": result.arms[OURS].get(ALIKE, UNMEASURED),
        COPY: result.arms[OURS][COPIED],
        MORE: least_gain(result),
    }
    if INVERSION in evidence.arms:
        table[GAIN] = inversion_gain(evidence, seed)
    if cost is not None:
        table[COST] = Score(cost, math.nan, math.nan, len(evidence.panel.states))
    return table


def least_gain(result: Result) -> Score:
    """Of the attributes that enough cells hide."""
    gains = [row[GAINED] for row in result.hidden.values()]
    return min((gain for gain in gains if gain.count >= ENOUGH), key=lambda gain: gain.value, default=UNMEASURED)


def inversion_gain(evidence: Evidence, seed: int) -> Score:
    """State kept by ours minus by Textual Inversion, if that keeps more than no tokens do."""
    inverted = evidence.arms[INVERSION]
    truth = evidence.truth.pick(inverted.rows)
    ours, nothing = (evidence.arms[arm].only(inverted.rows).seen for arm in (OURS, NOTHING))
    if not state_gain(inverted.seen, nothing, truth, seed).value > 0:
        return UNMEASURED
    return state_gain(ours, inverted.seen, truth, seed)


def rows(values: Mapping[str, Score], notes: Mapping[str, str], origin: Origin, **facts: Any) -> list[dict[str, Any]]:
    """A row for every bar, measured or not. notes: arm that was left out -> why; facts: such as the seed."""
    made = []
    for bar in BARS:
        score = values.get(bar.name, UNMEASURED)
        value, low = finite(score.value), finite(score.low)
        made.append(
            {
                "name": bar.name, "bar": bar.limit, "rule": bar.rule, "unit": bar.unit, "value": value, "low": low,
                "high": finite(score.high), "count": score.count, "met": bar.is_met(low if bar.name == COPY else value),
                "note": "" if value is not None else _why(bar, notes),
                **facts, **asdict(origin),
            }
        )  # fmt: skip
    return made


def _why(bar: Bar, notes: Mapping[str, str]) -> str:
    return notes.get(
        _ARM.get(bar.name, ""),
        _NEEDS.get(bar.name, "the panel shows nothing of that kind, or what it is a share of is no better than chance"),
    )


def merge_into(file: Path, fresh: list[dict[str, Any]], origin: Origin, seed: int) -> None:
    """Fresh rows in the place of those of the same name, seed and source. What a run could not measure leaves what an
    earlier one of the same encoder has measured.
    """
    found = load(file)
    for row in fresh:
        before = found.get(_key(row))
        if row["value"] is None and before and before["value"] is not None and before.get("encoder") == row["encoder"]:
            continue
        found[_key(row)] = row
    order = {bar.name: place for place, bar in enumerate(BARS)}
    table = sorted(found.values(), key=lambda row: (row["source"], row["seed"], order.get(row["name"], len(order))))
    runs.write_json(file, {**asdict(origin), "seed": seed, "bars": table})


def load(file: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """The rows of a file by name, seed and source; none where there is no file. Raises ConfigError."""
    try:
        found = json.loads(file.read_text())["bars"] if file.exists() else []
        return {_key(row): row for row in found}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} holds no rows of evaluate: {error!r}", "give --into another file") from error


def _key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["name"], row["seed"], row["source"]

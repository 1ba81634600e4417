"""All tables of one evaluation, and their machine-readable form: the same bytes for the same pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harald.evaluation import tables
from harald.evaluation.accuracy import Score
from harald.evaluation.bar import finite
from harald.evaluation.evidence import Evidence
from harald.evaluation.tables import Row


@dataclass(frozen=True)
class Result:
    """Tables by what their rows are; see evaluation/tables.py. losses: arm -> flow loss, and by how much it is worse
    than the own tokens'. unreadable: share of the judge's answers that name no class, of drawn pictures and real views.
    notes: what could not be measured, and why.
    """

    arms: dict[str, Row]
    attributes: dict[str, Row]
    groups: dict[str, Row]
    following: dict[str, Row]
    counts: dict[int, Row]
    hidden: dict[str, Row]
    pairs: dict[str, Row]
    losses: dict[str, tuple[Score, Score]]
    unreadable: tuple[float, float]
    notes: dict[str, str]

    @classmethod
    def of(
        cls, evidence: Evidence, losses: dict[str, tuple[Score, Score]], notes: Mapping[str, str], seed: int
    ) -> "Result":
        drawn = [*evidence.arms.values(), *evidence.counts.values(), *evidence.overridden.values()]
        return cls(
            arms=tables.arm_table(evidence, seed),
            attributes=tables.attribute_table(evidence, seed),
            groups=tables.group_table(evidence, seed),
            following=tables.following_table(evidence, seed),
            counts=tables.count_table(evidence, seed),
            hidden=tables.hidden_table(evidence, seed),
            pairs=tables.pair_table(evidence, seed),
            losses=losses,
            unreadable=(tables.unreadable([arm.seen for arm in drawn]), tables.unreadable([evidence.views])),
            notes=dict(notes),
        )

    def as_json(self, **facts: Any) -> dict[str, Any]:
        named = {
            "arms": self.arms, "attributes": self.attributes, "groups": self.groups, "prompt": self.following,
            "hidden by one reference": self.hidden, "domains": self.pairs,
        }  # fmt: skip
        return {
            **facts,
            **{name: {key: _row(row) for key, row in table.items()} for name, table in named.items()},
            "references": {str(count): _row(row) for count, row in self.counts.items()},
            "loss": {arm: _row({"loss": loss, "worse by": gap}) for arm, (loss, gap) in self.losses.items()},
            "unreadable": dict(zip(("drawn", "real"), self.unreadable, strict=True)),
            "not measured": self.notes,
        }


def _row(row: Row) -> dict[str, dict[str, float | int | None]]:
    return {
        name: {
            "value": finite(score.value), "low": finite(score.low), "high": finite(score.high), "count": score.count,
        }
        for name, score in row.items()
    }  # fmt: skip

"""The number that picks the checkpoint and ends a training early: pure functions of the lines of metrics.jsonl."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from harald.errors import TrainingError

SCORE, TIE = "validation/score", "validation/tie"


@dataclass(frozen=True)
class Validation:
    """score: name of the number that counts, of which more is better; tie: of the one that counts between equal scores
    (empty: none does); measure: () -> these and others, by name.

    measure draws no global random number and changes no model: a training with it takes the steps of one without.
    """

    score: str
    measure: Callable[[], dict[str, float]]
    tie: str = ""

    def row(self) -> dict[str, float]:
        """For the step's line in metrics.jsonl. What is not a number (nothing shows the part) is left out.

        Raises TrainingError if that is the score.
        """
        measured = self.measure()
        if math.isnan(measured[self.score]):
            raise TrainingError(
                f"validation measured {measured}: no picture shows what {self.score!r} is about",
                "raise train.validation_states",
            )
        named = {f"validation/{name}": value for name, value in measured.items() if value == value}
        tie = {TIE: measured[self.tie]} if self.tie and not math.isnan(measured[self.tie]) else {}
        return {SCORE: measured[self.score], **tie, **named}


def best_step(lines: bytes) -> int | None:
    """The step of the best score (of equal ones the better tie, then the last, which has learnt longest); None before
    the first validation.
    """
    scores = _scores(lines)
    return max(scores, key=lambda step: (scores[step], step)) if scores else None


def exhausted(lines: bytes, patience: int) -> bool:
    """Whether the last `patience` validations have brought no better score; never with patience 0."""
    scores = list(_scores(lines).values())
    return bool(patience and scores and len(scores) - 1 - scores.index(max(scores)) >= patience)


def _scores(lines: bytes) -> dict[int, tuple[float, float]]:
    rows = (json.loads(line) for line in lines.splitlines())
    return {row["step"]: (row[SCORE], row.get(TIE, 0.0)) for row in rows if SCORE in row}

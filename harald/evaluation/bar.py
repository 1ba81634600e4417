"""A bar that a measured value has to reach, and where a row of measured values comes from."""

import math
from dataclasses import dataclass
from typing import Literal

DIGITS = 6  # of a value; what is written is what is compared


@dataclass(frozen=True)
class Bar:
    """A value must be at least (at most, above) the limit."""

    name: str
    limit: float
    unit: str
    rule: Literal[">=", "<=", ">"] = ">="

    def is_met(self, value: float | None) -> bool:
        if value is None:
            return False
        return {">=": value >= self.limit, "<=": value <= self.limit, ">": value > self.limit}[self.rule]


@dataclass(frozen=True)
class Origin:
    """Where a row comes from: the command line, the commit, the device (and the threads of a CPU)."""

    command: str
    commit: str
    device: str


def finite(value: float) -> float | None:
    """As it is written: rounded, None where nothing could be measured."""
    return round(value, DIGITS) if math.isfinite(value) else None

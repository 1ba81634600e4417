"""What a job will take and cost, from what earlier runs took. What was not measured has no number."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from harald.config import Config
from harald.running import status
from harald.runtime import Machine

# Job -> how much work is planned, from its configuration and flags, in the unit that its seconds grow with.
SIZES: dict[str, Callable[[Config, dict[str, Any]], int]] = {
    "train": lambda config, inputs: config.train.steps,
    "generate": lambda config, inputs: inputs["drawings"],
    "demo_dataset": lambda config, inputs: inputs["states"] * inputs["views"],
    "injection_poc": lambda config, inputs: len({"output", "input", config.injection.point}) * config.poc.steps,
    "verify": lambda config, inputs: inputs["steps"],
}

FAN_OUT: dict[str, Callable[[Config], int]] = {"prepare": lambda config: config.prepare.containers}


def planned(job: str, config: Config, inputs: dict[str, Any], earlier: status.Status | None) -> int | None:
    """Units of work that are left; None for a job without a size. Only train goes on where an earlier start ended."""
    if job not in SIZES:
        return None
    size = SIZES[job](config, inputs)
    return max(0, size - earlier.done) if job == "train" and earlier else size


def estimate(parent: Path, preset: str, gpu: str, units: int | None, machine: Machine) -> str:
    """One line. parent: folder of all runs of the job; units: of planned work, None for a job without a size."""
    found = [status.read(folder) for folder in sorted(parent.iterdir())] if parent.is_dir() else []
    finished = [s for s in found if s and s.completed and s.seconds and (s.preset, s.gpu) == (preset, gpu)]
    if units == 0:
        return "estimate: nothing is left to do"
    if units:
        takes = [s.seconds / s.units * units for s in finished if s.units]
    else:
        takes = [s.seconds / s.completed for s in finished]
    if takes:
        times = f"{len(takes)} finished run{'s' if len(takes) > 1 else ''} on {gpu}"
        return f"estimate: about {duration(median(takes))}{_at(_paid(finished, machine), median(takes))}, from {times}"
    limit = f"; at most {duration(machine.timeout)}{_at(machine, machine.timeout)}" if machine.timeout else ""
    return f"estimate: not measured yet on {gpu}{limit}"


def with_parts(job: str, config: Config, machine: Machine) -> Machine:
    """With the price of all containers that the job may use at a time."""
    if job not in FAN_OUT or machine.price is None or machine.part is None:
        return machine
    return replace(machine, price=machine.price + FAN_OUT[job](config) * machine.part)


def _paid(finished: list[status.Status], machine: Machine) -> Machine:
    """With what a second has really cost, of containers of different kinds."""
    costs = [s.cost / s.seconds for s in finished if s.cost]
    return replace(machine, price=median(costs)) if costs else machine


def duration(seconds: float) -> str:
    """'7 s', '4 min', '2.5 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def money(dollars: float | None) -> str:
    """Empty where nothing is to be paid."""
    if dollars is None:
        return "no list price known"
    return f"${dollars:.2f}" if dollars >= 1 else f"${dollars:.4f}" if dollars else ""


def _at(machine: Machine, seconds: float) -> str:
    text = money(None if machine.price is None else machine.price * seconds)
    return f" = {text} at list price" if text.startswith("$") else f" ({text})" if text else ""

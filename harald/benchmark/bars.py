"""The bars that ratios of measured times have to reach, and rows of tables."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch

from harald import config
from harald.base import compiled
from harald.benchmark.bench import Ratio
from harald.benchmark.clock import Timing
from harald.config import Economy
from harald.evaluation.bar import Bar

THROUGHPUT = Bar("training: samples/s against the plain loop, bfloat16", 3.0, "times")
THROUGHPUT_8 = Bar("training: samples/s against the plain loop, frozen weights in float8", 4.5, "times")
SHARE = Bar("training: share of the measured bfloat16 rate, nothing recomputed", 0.55, "share")
MEMORY = Bar("training: peak memory of the step that is to fit 80 GiB", 80.0, "GiB", "<=")
DETERMINISTIC = Bar("training: deterministic against not, time", 1.10, "times", "<=")
SAME = Bar("same bytes twice: tensors and pictures that differ, with and without compilation", 0.0, "of all", "<=")
PERSON = Bar("picture: with a person against without, slowest number of references", 1.03, "times", "<=")
EDIT = Bar("picture: faster than the edit pipeline with 3 pictures", 5.0, "times")
EXACT = Bar("picture: exact, faster than the stock pipeline", 1.3, "times")
FAST = Bar("picture: fast (float8, block cache), faster than the stock pipeline", 2.2, "times")
GPUS = Bar("training: two GPUs against one, samples/s", 1.9, "times")
BARS = (THROUGHPUT, THROUGHPUT_8, SHARE, MEMORY, DETERMINISTIC, SAME, PERSON, EDIT, EXACT, FAST, GPUS)
NOTHING: Ratio = (math.nan, math.nan, math.nan)


def ratio(slow: Timing | None, fast: Timing | None) -> Ratio:
    """How many times as long the first arm took."""
    if slow is None or fast is None or not slow.seconds or not fast.seconds:
        return NOTHING
    each = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return slow.median / fast.median, min(each), max(each)


def shares(timing: Timing | None, flops: int, rate: float) -> Ratio:
    """Of the machine's rate, what so many operations in that time are. flops: 0 where they could not be counted."""
    if timing is None or not timing.seconds or not flops:
        return NOTHING
    each = sorted(flops / seconds / rate for seconds in timing.seconds)
    return flops / timing.median / rate, each[0], each[-1]


def share(timing: Timing, flops: int, rate: float) -> str:
    return f"{100 * shares(timing, flops, rate)[0]:.0f} %" if timing.seconds and flops else ""


def compiles(device: torch.device) -> bool:
    """Without a GPU there is no compiler to measure."""
    return device.type == "cuda" or compiled.BACKEND != "inductor"


def able(arms: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Those that this machine can take."""
    return dict(arms) if compiles(device) else {n: a for n, a in arms.items() if "compiled" not in n}


def runnable(economy: Economy, device: torch.device) -> Economy:
    """As it is, but for compilation where there is no compiler."""
    return economy if compiles(device) else dataclasses.replace(economy, compile="off")


def row(name: str, timing: Timing, device: torch.device, samples: int, *more: str) -> str:
    """A line of a table: times, of one sample and of 1,000 in USD, or of one picture where samples is 0."""
    if not timing.seconds:
        return f"| {name} | failed: {timing.failed} |" + " |" * ((4 if samples else 3) + len(more))
    low, high, each = min(timing.seconds), max(timing.seconds), timing.median / (samples or 1)
    cells = [f"{timing.median:.3f} s", f"{low:.3f} to {high:.3f} s"]
    cells += [f"{1e3 * each:.1f} ms", dollars(1000 * each, device)] if samples else [dollars(each, device)]
    return " | ".join([f"| {name}", *cells, f"{timing.peak / 2**30:.1f} GiB", *more]) + " |"


def dollars(seconds: float, device: torch.device) -> str:
    """What they cost on Modal on this GPU, "" where no price is known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    gpu = next((known for known in config.PRICE_GPU if known.partition("-")[0] in name.split()), "")
    each = config.price({**config.INFER_JOB, "gpu": gpu}) if gpu else None
    return "" if each is None else f"${seconds * each:.4f}"

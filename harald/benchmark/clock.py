"""Times of several arms in turn, so that what the machine does besides hits them alike."""

import gc
import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from harald.errors import HaraldError

log = logging.getLogger(__name__)

Found = TypeVar("Found")

# CUDA's, the compiler's and the libraries' errors: what keeps one arm from running must not lose the others.
FAILURES = (
    HaraldError, RuntimeError, ValueError, TypeError, AttributeError, AssertionError, LookupError, ArithmeticError,
    ImportError, OSError,
)  # fmt: skip


@dataclass(frozen=True)
class Timing:
    """Seconds of each round; peak: bytes of device memory, of all rounds and with everything that was there before.

    failed: why there are none; then of no round, even if some went well: they are no match for those of other arms.
    """

    seconds: tuple[float, ...]
    peak: int
    failed: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")


def in_turn(
    arms: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, first: Mapping[str, Any] | None = None
) -> dict[str, Timing]:
    """Each arm once for warming up, then all in turn, `rounds` times. An arm that fails takes no further turn.

    first: of the same names, what warms an arm up in its place.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    peaks, failed = dict.fromkeys(arms, 0), dict[str, str]()
    for number in range(rounds + 1):
        for name, call in (arms if number or first is None else first).items():
            if name in failed:
                continue
            try:
                taken, peak = once(call, device)
            except FAILURES as error:
                failed[name] = f"{said(error)} (round {number})" if number else said(error)
                log.warning("%s failed: %s", name, failed[name], exc_info=not isinstance(error, torch.OutOfMemoryError))
                del error  # its frames hold tensors
                _forget(device)
                continue
            log.info("%s: %.3f s %s", name, taken, f"in round {number}" if number else "the first time")
            peaks[name] = max(peaks[name], peak)
            if number:
                seconds[name].append(taken)
    return {
        name: Timing((), 0, failed[name]) if name in failed else Timing(tuple(seconds[name]), peaks[name])
        for name in arms
    }


def tried(call: Callable[[], Found], otherwise: Callable[[str], Found]) -> Found:
    """What the call gives; if it fails, what `otherwise` makes of the reason: nothing that was measured before is lost
    for it.
    """
    try:
        return call()
    except FAILURES as error:
        log.warning("not measured: %s", said(error), exc_info=True)
        why = said(error)
    return otherwise(why)  # here the error's frames, which hold tensors, are gone


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def at_steps(drawn: Mapping[int, Timing], wanted: int) -> Timing:
    """Of a picture of so many steps, from pictures of two smaller numbers: a step costs the same whenever it is.

    >>> at_steps({2: Timing((3.0,), 1), 5: Timing((6.0,), 1)}, 50).seconds
    (51.0,)
    """
    (few, small), (more, large) = sorted(drawn.items())
    if small.failed or large.failed:
        return Timing((), 0, small.failed or large.failed)
    each = [a + (b - a) / (more - few) * (wanted - few) for a, b in zip(small.seconds, large.seconds, strict=True)]
    return Timing(tuple(each), max(small.peak, large.peak))


def once(call: Callable[[], Any], device: torch.device) -> tuple[float, int]:
    """Seconds, and bytes of device memory at the peak."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    call()
    if cuda:
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, torch.cuda.max_memory_allocated(device) if cuda else 0


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int = 8192, rounds: int = 10) -> float:
    """Floating-point operations a second of a product of two square matrices of random numbers, median."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    timing = in_turn({"product": lambda: a @ b}, rounds, device)["product"]
    return 2 * side**3 / timing.median

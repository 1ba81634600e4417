"""What fits on GPUs of several sizes. A smaller one is this one with a bound on what may be allocated."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing, place
from harald.benchmark.bars import MEMORY, compiles, dollars, runnable
from harald.benchmark.bench import Bench, Measured, Ratio, forget
from harald.benchmark.clock import Timing, at_steps, in_turn, tried
from harald.benchmark.training import Steps, states_of_part
from harald.config import ECONOMIES, Config, Economy
from harald.injection.points import plain

CARDS = {24: 23.6, 48: 47.4, 80: 79.1, 141: 139.8}  # GiB by name: what a program sees of such a card
CONTEXT = 0.7  # GiB of it that CUDA itself takes
STEPS = (2, 4)
DRAWINGS = {
    "exact": Drawing("exact"),
    "exact, text encoder on the host": Drawing("exact", offload="text"),
    "fast": Drawing("fast"),
    "fast, text encoder on the host": Drawing("fast", offload="text"),
    "eager, blocks and text encoder on the host": Drawing(offload="blocks"),
}


@contextlib.contextmanager
def card(gib: float, device: torch.device) -> Iterator[None]:
    """Inside, no more may be allocated than on such a card. On a CPU there is no bound."""
    forget(device)
    if device.type != "cuda":
        yield
        return
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (gib - CONTEXT) * 2**30 / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        forget(device)


def smallest(work: Callable[[], dict[str, Timing]], device: torch.device) -> tuple[int, dict[str, Timing]]:
    """The smallest card on which all of the work runs, 0 for none, and its times there (else on the largest)."""
    timings: dict[str, Timing] = {}
    for name, gib in CARDS.items():
        with card(gib, device):
            timings = work()
        if all(timing.seconds for timing in timings.values()):
            return name, timings
    return 0, timings


def drawing(bench: Bench) -> Iterator[Measured]:
    """Each way to draw, its models made anew, on ever larger cards."""
    rows, timings, config, device = [], dict[str, Timing](), bench.config, bench.device
    head = [
        f"A picture of {config.generate.size} px, from {STEPS[0]} and {STEPS[1]} steps calculated for "
        f"{config.generate.steps}; fast without what its cache spares in so few steps.", "",
        "| way to draw | smallest card it fits | peak memory | a picture | price on this GPU |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, way in DRAWINGS.items():
        if not compiles(device) and way.speed != "eager":
            continue
        fits, timings[name] = tried(partial(fitting, bench, way), lambda why: (0, Timing((), 0, why)))
        rows.append(_row(name, fits, timings[name], dollars(timings[name].median, device)))
        forget(device)
        yield Measured(timings, {}, "\n".join([*head, *rows]))


def fitting(bench: Bench, way: Drawing) -> tuple[int, Timing]:
    """The smallest card on which pictures are drawn like this, and what one takes."""
    base, config = placed(bench, way), bench.config

    def work() -> dict[str, Timing]:
        return in_turn({str(n): lambda n=n: draw(base, config, n) for n in STEPS}, bench.rounds, bench.device)

    fits, found = smallest(work, bench.device)
    return fits, at_steps({n: found[str(n)] for n in STEPS}, config.generate.steps)


def placed(bench: Bench, way: Drawing) -> QwenImage:
    """From weights on the device, so that the host holds them once."""
    made = bench.base()
    place(made.pipeline, way, bench.device)
    return QwenImage(made.pipeline, made.repo, drawing=way)


@torch.no_grad()
def draw(base: QwenImage, config: Config, steps: int) -> Any:
    g = config.generate
    base.texts.clear()  # reading them needs memory, too
    states, negative = plain(base, "photo of a person, laughing, on a beach"), plain(base, g.negative_prompt)
    return base.draw(states, negative, [0], g.size, steps, g.guidance)


def training(bench: Bench) -> Iterator[Measured]:
    """A step with each of config.ECONOMIES, bfloat16 first: what is in float8 stays so."""
    timings, rows, found = dict[str, Timing](), [], dict[Any, Ratio]()
    train, base = bench.config.train, bench.base()
    steps = Steps(base, bench.encoder(base), bench.states, bench.config)
    facts = {"economies": {name: dataclasses.asdict(economy) for name, economy in ECONOMIES.items()}}
    head = [
        f"A step of {states_of_part(train)} states x {train.targets_per_state} targets with the teacher's pass, "
        f"{train.max_references} references; the optimiser's state included.", "",
        "| savings | smallest card it fits | peak memory | a step | 1,000 samples on this GPU |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, economy in sorted(ECONOMIES.items(), key=lambda item: (item[1].frozen != "plain", -item[0])):
        label = f"train.economy for {name} GiB"
        fits, timings[label] = needs(steps, runnable(economy, bench.device), bench)
        rows.append(_row(label, fits, timings[label], _samples(timings[label], steps.samples, bench)))
        peak = timings[label].peak / 2**30
        if name == 80 and peak:  # none on a CPU
            found[MEMORY] = (peak, peak, peak)
        yield Measured(timings, found, "\n".join([*head, *rows]), facts, {MEMORY: "with the teacher's pass"})


def needs(steps: Steps, economy: Economy, bench: Bench) -> tuple[int, Timing]:
    """The smallest card on which a step runs, and what it takes."""

    def work(rounds: int = bench.rounds) -> dict[str, Timing]:
        steps.forget()  # what is recorded within the bound fits
        return in_turn({"step": lambda: steps.step("taught", economy)}, rounds, bench.device)

    converted = work(0)["step"]  # with all memory: into float8, compiled
    if converted.failed:
        return 0, converted
    fits, found = smallest(work, bench.device)
    return fits, found["step"]


def _samples(timing: Timing, samples: int, bench: Bench) -> str:
    each = timing.median / samples
    return f"{1000 * each:.0f} s, {dollars(1000 * each, bench.device)}"


def _row(name: str, fits: int, timing: Timing, price: str) -> str:
    if not timing.seconds:
        return f"| {name} | none: {timing.failed} | | | |"
    return f"| {name} | {fits or 'none'} GiB | {timing.peak / 2**30:.1f} GiB | {timing.median:.2f} s | {price} |"

"""The same bytes twice at full shape, and what that costs; which of Inductor's fusions keep them."""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from harald import determinism
from harald.base.compiled import ONE_BY_ONE, SAME_TWICE, Fusions, compiled
from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing
from harald.benchmark.bars import DETERMINISTIC, SAME, able, ratio, row
from harald.benchmark.bench import Bench, Measured, forget
from harald.benchmark.clock import Timing, in_turn, tried
from harald.benchmark.drawing import in_float8
from harald.benchmark.training import LOOSE, OURS, Steps
from harald.config import FewSteps
from harald.injection.points import plain

Work = Callable[[], list[Tensor]]
Result = TypeVar("Result")
FLOAT8 = "gradients, compiled, float8"
DIGITS = 64  # of a hash
FEW = 3  # steps of a picture
BLOCKS = 4  # of the base model, on which fusions are tried
SETS: dict[str, Fusions] = {
    "all fusions": {},
    "all fusions, deterministic (same_twice)": SAME_TWICE,
    "two nodes at most": {**ONE_BY_ONE, "max_fusion_size": 2, "epilogue_fusion": True},
    "one node at most": ONE_BY_ONE,
}


def part(bench: Bench) -> Iterator[Measured]:
    """Gradients of a step and pictures, each computed twice with other work in between, and once in another process."""
    found, timings, samples = here(bench)
    forget(bench.device)  # the other process needs the memory
    yield tables(bench, found, timings, samples, {})
    elsewhere = tried(lambda: of_another_process(bench), lambda why: dict.fromkeys(found, f"failed: {why}"))
    yield tables(bench, found, timings, samples, elsewhere)


def here(bench: Bench) -> tuple[dict[str, tuple[int | str, str]], dict[str, Timing], int]:
    """What `twice` finds of everything, times of a step with and without determinism, and its samples."""
    steps = whole_steps(bench)
    promised = able(promises(steps, bench), bench.device)
    last = {name: promised.pop(name) for name in [FLOAT8] if name in promised}
    found = {name: cleared(partial(twice, call), steps) for name, call in promised.items()}
    timings = in_turn({OURS: partial(steps.step, "ours", steps.own), LOOSE: steps.loose}, bench.rounds, bench.device)
    steps.forget()
    found |= {name: cleared(partial(twice, call), steps) for name, call in last.items()}
    return found, timings, steps.samples


def whole_steps(bench: Bench) -> Steps:
    base = bench.base()
    return Steps(base, bench.encoder(base), bench.states, bench.config)


def promises(steps: Steps, bench: Bench) -> dict[str, Work]:
    """What has to be the same bytes. The last one leaves the weights in float8."""
    plainly, same, light = (
        steps.economy(compile=name, frozen=frozen)
        for name, frozen in (("off", "plain"), ("same_twice", "plain"), ("same_twice", "float8_once"))
    )
    # without the distilled LoRA, which would be in the weights; its steps, no guidance
    few = Drawing("lightning", few=bench.config.models.few_steps or FewSteps(""))
    fast = Drawing("fast", bench.config.generate.cache_threshold)
    return {
        "gradients, eager": lambda: steps.gradient(plainly),
        "gradients, compiled": lambda: steps.gradient(same),
        "gradients, compiled, recorded": lambda: steps.gradient(same, "recorded"),
        "a picture, eager": lambda: [drawn(steps.base, bench, Drawing())],
        "a picture, compiled (exact)": lambda: [drawn(steps.base, bench, Drawing("exact"))],
        "a picture, compiled, 8 steps without guidance (lightning)": lambda: [drawn(steps.base, bench, few)],
        "a picture, compiled, float8, block cache (fast)": lambda: [drawn(light_base(steps), bench, fast)],
        FLOAT8: lambda: steps.gradient(light),
    }


def light_base(steps: Steps) -> QwenImage:
    """With blocks in float8, beside the other one; an earlier one is gone."""
    forget(steps.base.device)
    return in_float8(steps.base)


def of_another_process(bench: Bench) -> dict[str, str]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        return other.submit(digests, bench.again, torch.get_num_threads()).result()


def digests(again: Callable[[], Bench], threads: int) -> dict[str, str]:
    """Name -> hash of what is promised, computed once; or why it failed. In a process of its own."""
    torch.set_num_threads(threads)  # sums on a CPU depend on it
    bench = again()
    determinism.enable(bench.config.seed, bench.config.deterministic)
    steps = whole_steps(bench)
    return {
        name: cleared(partial(tried, lambda call=call: digest(call()), lambda why: f"failed: {why}"), steps)
        for name, call in able(promises(steps, bench), bench.device).items()
    }


def cleared(measure: Callable[[], Result], steps: Steps) -> Result:
    """Nothing that was recorded for it stays."""
    found = measure()
    steps.forget()
    return found


def tables(
    bench: Bench, found: Mapping[str, tuple[int | str, str]], timings: dict[str, Timing], samples: int,
    elsewhere: Mapping[str, str],
) -> Measured:  # fmt: skip
    """found: see `twice`; elsewhere: hashes of the other process."""
    ratios = {DETERMINISTIC: ratio(timings[OURS], timings[LOOSE])}
    counts = [count for count, _ in found.values()]
    hashes = [(own, elsewhere.get(name, "")) for name, (_, own) in found.items()]
    if all(isinstance(count, int) for count in counts) and all(len(other) == DIGITS for _, other in hashes):
        total = float(sum(int(count) for count in counts) + sum(one != other for one, other in hashes))
        ratios[SAME] = (total, total, total)
    lines = [
        "Tensors (or pictures) that differ between two calls, a hash of the first, and what another process has, which "
        "may take compiled kernels from the cache of the first:",
        "", "| what | differ | SHA-256 | another process |", "|---|---|---|---|",
        *(f"| {name} | {count} | {own[:12]} | {compared(own, elsewhere.get(name, ''))} |"
          for name, (count, own) in found.items()),
        "",
        "| a step | time | fastest to slowest | a sample | 1,000 samples | peak memory |", "|---|---|---|---|---|---|",
        *(row(name, timing, bench.device, samples) for name, timing in timings.items()),
    ]  # fmt: skip
    note = f"{len(found)} kinds of gradients and pictures, each twice in one process and once in another"
    facts = {"differ": found, "elsewhere": elsewhere}
    return Measured(timings, ratios, "\n".join(lines), facts, {SAME: note, DETERMINISTIC: "without the teacher's pass"})


def compared(own: str, other: str) -> str:
    """
    >>> compared("a" * 64, "a" * 64), compared("a" * 64, "b" * 64), compared("a" * 64, "failed: no"), compared("", "")
    ('the same', 'other bytes', 'failed: no', '')
    """
    if len(own) != DIGITS or len(other) != DIGITS:
        return other if len(other) != DIGITS else ""
    return "the same" if own == other else "other bytes"


def twice(call: Work) -> tuple[int | str, str]:
    """How many of the tensors are not the same bytes in a second call, or why it failed; a hash of the first call's."""

    def measured() -> tuple[int | str, str]:
        first = [tensor.clone() for tensor in call()]
        return sum(not same(one, other) for one, other in zip(first, call(), strict=True)), digest(first)

    return tried(measured, lambda why: (f"failed: {why}", ""))


def digest(tensors: Sequence[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
    return found.hexdigest()


def same(one: Tensor, other: Tensor) -> bool:
    """Random weights may give what is no number: that is the same, too."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def drawn(base: QwenImage, bench: Bench, drawing: Drawing) -> Tensor:
    """Bytes of a picture, and of one of other words before it, which must leave no trace."""
    g, before = bench.config.generate, base.drawing
    base.drawing = drawing
    base.texts.clear()
    try:
        with torch.no_grad():
            for text in ("a picture of something else", "photo of a person on a beach"):
                states, negative = plain(base, text), plain(base, g.negative_prompt)
                picture = base.draw(states, negative, [0], g.size, FEW, g.guidance)[0]
    finally:
        base.drawing = before
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)


def fusions(bench: Bench) -> Iterator[Measured]:
    """A few blocks, forward and backward, with each set of Inductor's options: time, and which bytes stay."""
    base = bench.base()
    transformer, config = base.transformer, bench.config
    (tokens, channels), _ = base.latent_shape(config.data.image_size)
    count = config.train.targets_per_state
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(count, tokens, channels, generator=draw).to(base.device, base.dtype)
    states = torch.randn(count, 150, base.width, generator=draw).to(base.device, base.dtype).requires_grad_()
    t = torch.full((count,), 0.5, device=base.device)
    vars(transformer)["transformer_blocks"] = list(transformer.transformer_blocks)[:BLOCKS]

    def work(chosen: Fusions) -> list[Tensor]:
        with compiled(transformer, chosen):
            out = base.velocity(noise, t, states, config.data.image_size)
            return [out.detach(), *torch.autograd.grad(out.float().square().mean(), states)]

    arms: dict[str, Any] = {f"{name}, compiled": lambda chosen=chosen: work(chosen) for name, chosen in SETS.items()}
    arms = able(arms, bench.device)
    timings = in_turn(arms, bench.rounds, bench.device)
    differ = {name: twice(call)[0] for name, call in arms.items()}
    del vars(transformer)["transformer_blocks"]
    forget(bench.device)
    text = "\n".join([
        f"{BLOCKS} blocks, {count} pictures of {config.data.image_size} px, forward and backward; of two tensors "
        "(velocity and gradient) so many differ between two calls:", "",
        "| Inductor | time | differ |", "|---|---|---|",
        *(f"| {name} | {_milliseconds(timings[name])} | {differ[name]} |" for name in arms),
    ])  # fmt: skip
    yield Measured(timings, {}, text, {"differ": differ})


def _milliseconds(timing: Timing) -> str:
    return f"{1e3 * timing.median:.2f} ms" if timing.seconds else "failed"

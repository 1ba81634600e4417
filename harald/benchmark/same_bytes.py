"""The same bytes twice at full shape, and what that costs; which of Inductor's fusions keep them."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harald.base.compiled import ONE_BY_ONE, SAME_TWICE, Fusions, compiled
from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing
from harald.benchmark.bars import DETERMINISTIC, SAME, able, ratio, row
from harald.benchmark.bench import Bench, Measured, forget
from harald.benchmark.clock import FAILURES, Timing, in_turn, said
from harald.benchmark.training import LOOSE, OURS, Steps
from harald.injection.points import plain

FEW = 3  # steps of a picture
BLOCKS = 4  # of the base model, on which fusions are tried
SETS: dict[str, Fusions] = {
    "all fusions": {},
    "all fusions, deterministic (same_twice)": SAME_TWICE,
    "two nodes at most": {**ONE_BY_ONE, "max_fusion_size": 2, "epilogue_fusion": True},
    "one node at most": ONE_BY_ONE,
}


def part(bench: Bench) -> Iterator[Measured]:
    """Gradients of a step and pictures, each computed twice with other work in between."""
    base = bench.base()
    steps = Steps(base, bench.encoder(base), bench.states, bench.config)
    plainly, same, fast = (steps.economy(compile=name) for name in ("off", "same_twice", "fastest"))
    promised: dict[str, Callable[[], list[Tensor]]] = {
        "gradients, eager": lambda: steps.gradient(plainly),
        "gradients, compiled": lambda: steps.gradient(same),
        "gradients, compiled, recorded": lambda: steps.gradient(same, "recorded"),
        "a picture, eager": lambda: [drawn(base, bench, Drawing())],
        "a picture, compiled (exact)": lambda: [drawn(base, bench, Drawing("exact"))],
    }
    others: dict[str, Callable[[], list[Tensor]]] = {
        "gradients, kernels chosen by the clock": lambda: steps.gradient(fast),
        "a picture, kernels chosen by the clock": lambda: [drawn(base, bench, Drawing("exact", same_twice=False))],
    }
    times = {OURS: lambda: steps.step("ours", steps.own), LOOSE: steps.loose}
    found_twice = {}
    for name, call in able(promised | others, bench.device).items():
        found_twice[name] = twice(call)
        steps.forget()
    timings = in_turn(able(times, bench.device), bench.rounds, bench.device)
    steps.forget()
    light = steps.economy(compile="same_twice", frozen="float8")
    promised["gradients, compiled, float8"] = lambda: steps.gradient(light)
    last = {name: call for name, call in able(promised, bench.device).items() if "float8" in name}
    found_twice |= {name: twice(call) for name, call in last.items()}
    counted = [count for name, (count, _) in found_twice.items() if name in promised]
    whole = len(counted) == len(promised) and all(isinstance(count, int) for count in counted)
    total = float(sum(count for count in counted if isinstance(count, int)))
    found = {DETERMINISTIC: ratio(timings.get(OURS), timings.get(LOOSE))}
    if whole:
        found[SAME] = (total, total, total)
    text = "\n".join([
        "Tensors (or pictures) that differ between two calls, and a hash of the first, for another process:",
        "",
        "| what | differ | SHA-256 |", "|---|---|---|",
        *(f"| {name} | {count} | {digest[:12]} |" for name, (count, digest) in found_twice.items()),
        "",
        "| a step | time | fastest to slowest | a sample | 1,000 samples | peak memory |", "|---|---|---|---|---|---|",
        *(row(name, timing, bench.device, steps.samples) for name, timing in timings.items()),
    ])  # fmt: skip
    yield Measured(timings, found, text, {"differ": found_twice})


def twice(call: Callable[[], list[Tensor]]) -> tuple[int | str, str]:
    """How many of the tensors are not the same bytes in a second call, or why it failed; a hash of the first call's."""
    try:
        first = [tensor.clone() for tensor in call()]
        count = sum(not same(one, other) for one, other in zip(first, call(), strict=True))
    except FAILURES as error:
        return f"failed: {said(error)}", ""
    digest = hashlib.sha256()
    for tensor in first:
        digest.update(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
    return count, digest.hexdigest()


def same(one: Tensor, other: Tensor) -> bool:
    """Random weights may give what is no number: that is the same, too."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())


def drawn(base: QwenImage, bench: Bench, drawing: Drawing) -> Tensor:
    """Bytes of a picture, and of one of other words before it, which must leave no trace."""
    g, before = bench.config.generate, base.drawing
    base.drawing = drawing
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

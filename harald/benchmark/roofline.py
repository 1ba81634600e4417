"""Where the time of a step and of a picture goes: each part alone, against its own limit."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harald.benchmark.bars import shares
from harald.benchmark.bench import Bench, Measured
from harald.benchmark.clock import in_turn
from harald.benchmark.flops import counted
from harald.benchmark.training import Steps, states_of_part, with_economy
from harald.injection.points import conditioned
from harald.training.economy import economical
from harald.training.step import trained_parameters

ADAM_BYTES = 28  # of a float32 parameter: it, its gradient and both moments are read, all but the gradient written


def part(bench: Bench) -> Iterator[Measured]:
    base = bench.base()
    steps = Steps(base, bench.encoder(base), bench.states, bench.config)
    works = pieces(steps, bench)
    eager = steps.economy(recompute_base=0.0, recompute_encoder=False, compile="off")
    fast = steps.economy(recompute_base=0.0, recompute_encoder=False)
    with economical(base, steps.encoder, with_economy(steps.configs["ours"], eager)):
        flops = {name: counted(work) for name, work in works.items()}
    with economical(base, steps.encoder, with_economy(steps.configs["ours"], fast)):
        timings = in_turn(works, bench.rounds, bench.device)
    speed, parameters = bandwidth(bench), sum(p.numel() for p in trained_parameters(steps.encoder))
    lines = []
    for name, timing in timings.items():
        if not timing.seconds:
            lines.append(f"| {name} | failed: {timing.failed} | | | |")
            continue
        limit = ADAM_BYTES * parameters / speed if name == OPTIMISER else flops[name] / bench.rate
        share = limit / timing.median if name == OPTIMISER else shares(timing, flops[name], bench.rate)[0]
        lines.append(
            f"| {name} | {flops[name] / 1e12:.2f} | {1e3 * limit:.1f} ms | {1e3 * timing.median:.1f} ms "
            f"| {100 * share:.0f} % |"
        )
    text = "\n".join([
        f"Each part alone, compiled as in training, {states_of_part(bench.config.train)} states: its limit is the "
        f"measured rate of matrix products ({bench.rate / 1e12:.0f} TFLOP/s), the optimiser's that of memory "
        f"({speed / 1e12:.2f} TB/s).", "",
        "| part | TFLOP | limit | time | share |", "|---|---|---|---|---|", *lines,
    ])  # fmt: skip
    yield Measured(timings, {}, text, {"flops": flops, "bandwidth": speed})


OPTIMISER = "optimiser"


def pieces(steps: Steps, bench: Bench) -> dict[str, Callable[[], Any]]:
    """Name -> the work, with what it needs at hand."""
    base, encoder, config = steps.base, steps.encoder, steps.configs["ours"]
    batch, parameters = steps.batches["ours"].to(base.device), trained_parameters(steps.encoder)
    targets = batch.targets.piece(0, config.train.targets_per_state)
    side, drawn = config.data.image_size, bench.config.generate.size
    with torch.no_grad():
        tokens = encoder.tokens(batch.references)
        words = conditioned(base, targets.layout, tokens.flatten(0, 1)).clone()
        group = torch.zeros(8, 3, side, side, device=base.device)
        latents = torch.zeros(1, base.vae.config.z_dim, 1, drawn // 8, drawn // 8, device=base.device, dtype=base.dtype)
    noisy, t = targets.noise, targets.t

    def velocity(states: Tensor) -> Tensor:
        return base.velocity(noisy, t, states, side, targets.layout.mask)

    def backward() -> Any:
        leaf = words.detach().requires_grad_()
        return torch.autograd.grad(velocity(leaf.view_as(leaf)).float().square().mean(), leaf)

    def read_backward() -> Any:
        found = encoder.tokens(batch.references)
        return torch.autograd.grad(found.square().mean(), parameters, materialize_grads=True)

    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    return {
        "vision tower, forward": torch.no_grad()(lambda: encoder._see(batch.references)),
        "encoder, forward": torch.no_grad()(lambda: encoder.tokens(batch.references)),
        "encoder, forward and backward": read_backward,
        f"text encoder, {len(t)} prompts": torch.no_grad()(
            lambda: conditioned(base, targets.layout, tokens.flatten(0, 1))
        ),
        f"MMDiT, forward, {len(t)} targets": torch.no_grad()(lambda: velocity(words)),
        f"MMDiT, forward and backward, {len(t)} targets": backward,
        "VAE, 8 targets": torch.no_grad()(lambda: base.encode_images(group)),
        f"VAE, a picture of {drawn} px": torch.no_grad()(lambda: base.vae.decode(latents)),
        OPTIMISER: steps.optimizer.step,
    }


def bandwidth(bench: Bench) -> float:
    """Bytes a second that a copy reads and writes."""
    size = 2**30 if bench.device.type == "cuda" else 2**24
    source = torch.zeros(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    return 2 * size / in_turn({"copy": lambda: target.copy_(source)}, 5, bench.device)["copy"].median

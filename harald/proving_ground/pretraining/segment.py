"""One segment of a training: short enough to need no checkpoint, its averaged weights are the result.

Nothing depends on history: a segment is a pure function of the weights that it starts from and of its keys.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harald.config import Config, Pretrain, Stage
from harald.determinism import key
from harald.errors import TrainingError
from harald.proving_ground.pretraining.pool import Pool
from harald.training.muon import make_optimizer
from harald.world import ALONE, World

log = logging.getLogger(__name__)

LOG_EVERY = 100  # steps


@dataclass(frozen=True)
class Plan:
    """How one segment is trained."""

    steps: int
    learning_rate: float
    warmup_steps: int = 50
    decay_share: float = 0.0  # last share of the steps, in which the learning rate falls linearly to 0
    ema: float = 0.999  # decay of the running mean of the weights; it grows to this as (1 + step) / (20 + step)
    weight_decay: float = 0.01
    muon_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    parts: int = 1  # of a step's batch, whose gradients are added in order
    optimizer: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True)
class Segment:
    """What a stage's `run(segment)` is given; it returns the metrics of its held-out check, JSON-ready.

    weights: the folder to start from, a copy to be changed in place: the stage writes its own part, rounded to
    bfloat16. number: 0 for the first segment of the stage. log_row: writes the stage's curve.
    """

    stage: str
    number: int
    config: Config
    weights: Path
    log_row: Callable[[dict], None]
    world: World = ALONE

    @property
    def pretrain(self) -> Pretrain:
        assert self.config.pretrain is not None, "checked before any segment starts"
        return self.config.pretrain

    @property
    def settings(self) -> Stage:
        return getattr(self.pretrain, self.stage)

    @property
    def states(self) -> range:
        """Numbers of the segment's own states."""
        return range(self.number * self.settings.states, (self.number + 1) * self.settings.states)

    def pool(self) -> Pool:
        p = self.pretrain
        return Pool(self.config.seed, self.states, p.held_out, p.views, p.side, p.workers)

    def plan(self, **changes: Any) -> Plan:
        """Only the last segment lets the learning rate fall. changes: fields of Plan that the settings do not hold."""
        stage = self.settings
        last = self.number + 1 >= stage.segments
        return Plan(
            stage.steps, stage.learning_rate, stage.warmup_steps, stage.decay_share if last else 0.0, stage.ema,
            optimizer=stage.optimizer, **changes,
        )  # fmt: skip

    def visible(self, step: int) -> int:
        """How many states the step may use: first_states, growing to all of them at three quarters of the segment.

        A pure function of the step, in 16 jumps: never 'what is there', which depends on the machine.
        """
        stage = self.settings
        jump = min(16, 16 * 4 * step // (3 * stage.steps))
        return stage.first_states + (stage.states - stage.first_states) * jump // 16 // 2 * 2

    def generator(self, device: torch.device, *parts: str | int) -> torch.Generator:
        """For one named draw of this segment, such as a step's."""
        return generator(device, self.config.seed, "pretrain", self.stage, self.number, *parts)


def train(
    modules: Sequence[nn.Module],
    loss: Callable[[int], dict[str, Tensor]],
    plan: Plan,
    log_row: Callable[[dict], None],
    world: World = ALONE,
) -> None:
    """Train the modules' parameters that require grad (float32) and leave their running mean in the modules.

    loss: number of a part, step * parts + its place, -> {"loss": scalar with a graph, and scalars to log}. log_row gets
    {"step", "learning_rate", means of these since the last row}, without timings: the same in every run. world: the
    processes that share the parts; each ends with the same weights.

    The device is never waited for between two rows. A loss or gradient that is not finite raises TrainingError at the
    next row; no step is taken from there on.
    """
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    parameters = [p for _, p in named]
    assert all(p.dtype == torch.float32 for p in parameters), "master weights are float32"
    optimizer = make_optimizer(
        plan.optimizer, named, plan.muon_decay, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay
    )
    broken = vars(optimizer)["found_inf"]
    mean = [p.detach().clone() for p in parameters]
    rows = _Rows(plan, log_row, broken)
    if plan.parts > 1:  # what is added to must not be the memory that a recorded step writes its gradients to
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    for step in range(plan.steps):
        rate = learning_rate(step, plan)
        for group in optimizer.param_groups:
            group["lr"] = rate
        values = _backward(loss, step, plan.parts, world, parameters)
        norm = nn.utils.clip_grad_norm_(parameters, plan.clip_norm)
        broken.logical_or_(~torch.isfinite(values["loss"] + norm))
        optimizer.step()
        optimizer.zero_grad(set_to_none=plan.parts == 1)
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - min(plan.ema, (1 + step) / (20 + step)))
        rows.add(step, rate, {**values, "grad_norm": norm})
    torch._foreach_copy_([p.detach() for p in parameters], mean)


def _backward(
    loss: Callable[[int], dict[str, Tensor]], step: int, parts: int, world: World, parameters: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Gradients of the mean over the parts. Returns the means of what is logged."""
    means: dict[str, Tensor] = {}
    for part in world.share(parts):
        values = loss(step * parts + part)
        (values["loss"] / parts).backward()
        means = {name: means.get(name, 0) + value.detach() / parts for name, value in values.items()}
    world.add([*(p.grad for p in parameters if p.grad is not None), *means.values()])
    return means


def learning_rate(step: int, plan: Plan) -> float:
    """Linear warm-up, constant, linear decay over the last decay_share of the steps."""
    warm = min(1.0, (step + 1) / max(1, plan.warmup_steps))
    left = (plan.steps - step) / max(1.0, plan.decay_share * plan.steps)
    return plan.learning_rate * min(warm, left if plan.decay_share else 1.0)


def generator(device: torch.device, seed: int, *parts: str | int) -> torch.Generator:
    """A generator on the device for one named draw, such as (seed, stage, segment, step)."""
    return torch.Generator(device).manual_seed(key(seed, *parts))


class _Rows:
    """Sums on the device; one look at them, and so one wait, every LOG_EVERY steps."""

    def __init__(self, plan: Plan, log_row: Callable[[dict], None], broken: Tensor):
        self.plan, self.log_row, self.broken = plan, log_row, broken
        self.sums: dict[str, Tensor] = {}
        self.count, self.since = 0, time.monotonic()

    def add(self, step: int, rate: float, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            value = value.detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1
        if (step + 1) % LOG_EVERY == 0 or step + 1 == self.plan.steps:
            self._write(step + 1, rate)

    def _write(self, step: int, rate: float) -> None:
        means = dict(zip(self.sums, (torch.stack(list(self.sums.values())) / self.count).tolist(), strict=True))
        if self.broken.item():
            raise TrainingError(
                f"a loss or gradient in the {self.count} steps up to step {step} is not finite: {means}",
                "the segment is lost, what it started from is as it was; lower the learning rate of the stage",
            )
        speed = self.count / (time.monotonic() - self.since)
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        log.info("step %d of %d: %s, learning rate %.2e, %.2f steps/s", step, self.plan.steps, numbers, rate, speed)
        self.log_row({"step": step, "learning_rate": rate, **means})
        self.sums, self.count, self.since = {}, 0, time.monotonic()

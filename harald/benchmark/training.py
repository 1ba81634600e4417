"""A training step: ours, and the loop as public trainers write it, on the same pictures of the same persons."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from harald.base.qwen_image import QwenImage
from harald.benchmark.bars import SHARE, THROUGHPUT, THROUGHPUT_8, ratio, row, runnable, share, shares
from harald.benchmark.bench import Bench, Measured, forget
from harald.benchmark.clock import Timing, in_turn, tried
from harald.benchmark.flops import counted
from harald.benchmark.shapes import sharing, with_parts
from harald.config import Config, Economy, Train
from harald.encoder.model import PersonEncoder
from harald.errors import DatasetError
from harald.records import State
from harald.training.batch import Batch, Batches
from harald.training.economy import economical, recomputing
from harald.training.loop import GradientsOf, gradients, make_optimizer, train_step
from harald.training.recording import new_pool
from harald.training.step import target_losses, trained_parameters

PLAIN, EAGER, OURS = "plain loop", "ours, eager", "ours, as the preset"
TAUGHT = "ours, as the preset, with the teacher's pass"
FLOAT8, RECORDED = "ours, as the preset but float8", "ours, as the preset but recorded"
AGAIN, LOOSE = "ours, as the preset, beside it", "ours, as the preset but not deterministic"
LAST = (AGAIN, EAGER, RECORDED)
ARMS = (PLAIN, OURS, TAUGHT, FLOAT8, *LAST)
STATES = 2  # of a step, at most: in preset full, whose parts have as many, the encoder reads them together
PEER = Economy(lora="autocast")  # everything is computed again, nothing compiled, in bfloat16 as public trainers do it


class Steps:
    """Steps on one batch of states x targets: one part of a step of the preset. The plain loop sees as many samples,
    each with an encoder pass of its own, and recomputes all activations. Recorded steps are recorded when they are
    first asked for.
    """

    def __init__(self, base: QwenImage, encoder: PersonEncoder, states: list[State], config: Config):
        self.own = runnable(dataclasses.replace(config.train.economy, frozen="plain"), base.device)
        train = dataclasses.replace(
            config.train, phases=(), teacher_weight=0.0, contrast_weight=0.0, override_share=0.0, drop_group=0.0,
            states_per_batch=states_of_part(config.train), parts=1, economy=self.own,
        )  # fmt: skip
        samples = train.states_per_batch * train.targets_per_state
        kinds = {
            "ours": train,
            "plain": dataclasses.replace(
                train, states_per_batch=samples, targets_per_state=1, recorded=False, economy=PEER
            ),
            "recorded": dataclasses.replace(train, recorded=True),
            "taught": dataclasses.replace(train, teacher_weight=1.0),
        }
        self.base, self.encoder, self.samples = base, encoder, samples
        self.configs = {name: dataclasses.replace(config, train=kind) for name, kind in kinds.items()}
        self.batches = {name: self._batch(c, states) for name, c in self.configs.items()}
        self.optimizer = make_optimizer(encoder, train)
        self.recorders: dict[Any, Any] = {}
        self.pool = new_pool()

    def beside(self) -> "Steps":
        """The same steps with other models, which share all weights with these until theirs are in float8."""
        other = copy.copy(self)
        other.base = with_parts(
            self.base, text_encoder=sharing(self.base.pipeline.text_encoder), transformer=sharing(self.base.transformer)
        )
        other.encoder = sharing(self.encoder)
        other.recorders = {}
        return other

    def _batch(self, config: Config, states: list[State]) -> Batch:
        """The first one with the most references; latents at hand, as from the cache."""
        base, encoder = self.base, self.encoder
        shape, mu = base.latent_shape(config.data.image_size)
        batches = Batches(config, states, shape, mu, None, encoder.chats, base.tokenize)
        wanted = (config.train.states_per_batch, config.train.max_references, config.train.targets_per_state)
        for step in range(512):
            batch = batches[step]
            counts = {(len(pair.references), len(pair.targets)) for pair in batch.pairs}
            if (len(batch.pairs), counts) == (wanted[0], {wanted[1:]}):
                assert batch.targets.pixels is not None
                with torch.no_grad():
                    latents = base.encode_images(batch.targets.pixels).cpu()
                return dataclasses.replace(
                    batch, targets=dataclasses.replace(batch.targets, pixels=None, latents=latents)
                )
        raise DatasetError(
            f"{len(states)} states give no batch of {wanted[0]} x ({wanted[1]} references and {wanted[2]} targets)",
            "use a data set with more states and views",
        )

    def economy(self, **changes: Any) -> Economy:
        """That of the preset, in bfloat16 but for the changes, compiled only if this machine can."""
        return runnable(dataclasses.replace(self.own, **changes), self.base.device)

    def forget(self) -> None:
        """Give back what recordings hold: all activations of a step."""
        self.recorders.clear()
        for parameter in trained_parameters(self.encoder):
            parameter.grad = None
        self.pool = new_pool()
        forget(self.base.device)

    def arms(self) -> dict[str, Callable[[], Any]]:
        return {
            PLAIN: self.peer,
            OURS: lambda: self.step("ours", self.own),
            TAUGHT: lambda: self.step("taught", self.own),
        }

    def other_arms(self) -> dict[str, Callable[[], Any]]:
        """Of no bar, and in need of the memory that float8 weights would take."""
        return {
            AGAIN: lambda: self.step("ours", self.own),
            EAGER: lambda: self.step("ours", self.economy(compile="off")),
            RECORDED: lambda: self.step("recorded", self.own),
        }

    def peer(self) -> None:
        with deterministic_algorithms(False):
            self.step("plain", PEER)

    def loose(self) -> None:
        with deterministic_algorithms(False):
            self.step("ours", self.economy(compile="fastest"))

    def token_gradient(self) -> Tensor:
        """Of the loss of our batch's first targets to the tokens, [K, d] over all states: what teaches the encoder."""
        batch, config = self.batches["ours"].to(self.base.device), self.configs["ours"]
        with torch.no_grad():
            tokens = self.encoder.tokens(batch.references)
        tokens.requires_grad_()
        some = batch.targets.piece(0, config.train.targets_per_state)
        with recomputing(self.base, self.encoder, 1.0, False):
            loss = target_losses(self.base, tokens, some, config)[0].mean()
            return torch.autograd.grad(loss, tokens)[0].float().sum(0)

    def gradient(self, economy: Economy, name: str = "ours") -> list[Tensor]:
        """Of our batch's loss to everything that is trained."""
        with economical(self.base, self.encoder, with_economy(self.configs[name], economy)):
            found, _ = self._of(name, economy)(self.batches[name].to(self.base.device))
        return found

    def _of(self, name: str, economy: Economy) -> GradientsOf:
        """A recording stays for the next time."""
        config = with_economy(self.configs[name], economy)
        if not config.train.recorded:
            return gradients(self.base, self.encoder, config)
        key = name, economy
        if key not in self.recorders:
            self.recorders[key] = gradients(self.base, self.encoder, config, self.pool)
        return self.recorders[key]

    def flops(self) -> int:
        """Of one of our steps, forward and backward, nothing recomputed; products of matrices and attention alone."""
        economy = self.economy(recompute_base=0.0, recompute_encoder=False, targets_at_once=2, compile="off")
        return counted(lambda: self.step("ours", economy))

    def step(self, name: str, economy: Economy) -> None:
        config = with_economy(self.configs[name], economy)
        with economical(self.base, self.encoder, config):
            train_step(self._of(name, economy), self.encoder, _quiet(self.optimizer), [self.batches[name]], config)


def states_of_part(train: Train) -> int:
    """Of one part of a step, what is on the device at a time; at most STATES."""
    return min(STATES, max(1, train.states_per_batch // train.parts))


def with_economy(config: Config, economy: Economy) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, economy=economy))


def deviation(exact: Tensor, other: Tensor, groups: Sequence[tuple[str, int]]) -> dict[str, tuple[float, float]]:
    """Gradients [K, d] of the tokens: for each group of slots cosine and ratio of the norms.

    >>> deviation(torch.eye(3), 2 * torch.eye(3), [("face", 1), ("worn", 2)])
    {'face': (1.0, 2.0), 'worn': (1.0, 2.0)}
    """
    parts = zip(groups, *(t.split([size for _, size in groups]) for t in (exact, other)), strict=True)
    return {
        name: (
            round(F.cosine_similarity(a.flatten(), b.flatten(), 0).item(), 6),
            round((b.norm() / a.norm()).item(), 6),
        )
        for (name, _), a, b in parts
    }


def _quiet(optimizer: AdamW) -> AdamW:
    """Random weights may give no finite loss; that must not end a measurement."""
    vars(optimizer)["found_inf"].zero_()
    return optimizer


@contextlib.contextmanager
def deterministic_algorithms(on: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def part(bench: Bench) -> Iterator[Measured]:
    """Our step and the plain loop in turn, float8 on a second set of models. Then without those the arms of no bar."""
    base = bench.base()
    steps = Steps(base, bench.encoder(base), bench.states, bench.config)
    light, economy = steps.beside(), steps.economy(frozen="float8_once")
    arms = {**steps.arms(), FLOAT8: partial(light.step, "ours", economy)}
    timings = in_turn(arms, bench.rounds, bench.device)
    groups = tried(partial(float8_gradients, steps, light), lambda _: {}) if timings[FLOAT8].seconds else {}
    del light, arms
    steps.forget()
    flops = tried(steps.flops, lambda _: 0)
    yield tables(bench, steps, timings, flops, groups)
    timings |= in_turn(steps.other_arms(), bench.rounds, bench.device)
    yield tables(bench, steps, timings, flops, groups)


def tables(
    bench: Bench, steps: Steps, timings: dict[str, Timing], flops: int, groups: dict[str, tuple[float, float]]
) -> Measured:
    """What was measured so far. groups: see `deviation`."""
    config, taught = bench.config, ratio(timings[TAUGHT], timings[OURS])
    note = f"without the teacher's pass; a step with it takes {taught[0]:.2f} times as long"
    found = {
        THROUGHPUT: ratio(timings[PLAIN], timings[OURS]),
        THROUGHPUT_8: ratio(timings[PLAIN], timings[FLOAT8]),
        SHARE: shares(timings[OURS], flops, bench.rate),
    }
    rows = [
        row(name, timing, bench.device, steps.samples, "" if name == TAUGHT else share(timing, flops, bench.rate))
        for name, timing in timings.items()
    ]
    lines = [
        f"A step of {states_of_part(config.train)} states x {config.train.targets_per_state} targets of "
        f"{config.data.image_size} px, {config.train.max_references} references each, prompts of unequal length, and "
        f"the optimiser. Preset {config.preset} takes {config.train.states_per_batch} states a step, parts: "
        f"{config.train.parts}, with "
        f"{described(steps)}. A step is {flops / 1e12:.1f} TFLOP with nothing recomputed and without the teacher's "
        f"pass, which all stages of the recipe have; the machine's rate is {bench.rate / 1e12:.0f} TFLOP/s.",
        "", "| arm | a step | fastest to slowest | a sample | 1,000 samples | peak memory | share of the rate |",
        "|---|---|---|---|---|---|---|", *rows, "",
        f"With the teacher's pass a step takes {taught[0]:.3f} times as long ({taught[1]:.3f} to {taught[2]:.3f}). "
        f"Peak memory: beside the weights in bfloat16 lie those in float8, but not in {', '.join(map(repr, LAST))}.",
    ]  # fmt: skip
    if groups:
        shown = ", ".join(f"{name} cosine {cosine:.4f}, norm {norm:.3f}" for name, (cosine, norm) in groups.items())
        lines += ["", f"Gradient of the tokens in float8 against bfloat16: {shown}."]
    facts = {"flops": flops, "samples": steps.samples, "teacher": taught, "float8_gradients": groups}
    return Measured(timings, found, "\n".join(lines), facts, dict.fromkeys(found, note))


def float8_gradients(steps: Steps, light: Steps) -> dict[str, tuple[float, float]]:
    return deviation(steps.token_gradient(), light.token_gradient(), steps.configs["ours"].encoder.groups)


def described(steps: Steps) -> str:
    economy, recorded = dataclasses.asdict(steps.own), steps.configs["ours"].train.recorded
    return ", ".join(f"{name} {value}" for name, value in (economy | {"recorded": recorded}).items())

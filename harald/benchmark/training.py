"""A training step: ours, and the loop as public trainers write it, on the same pictures of the same persons."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from harald.base.qwen_image import QwenImage
from harald.benchmark.bars import SHARE, THROUGHPUT, THROUGHPUT_8, able, ratio, row, share, shares
from harald.benchmark.bench import Bench, Measured, forget
from harald.benchmark.clock import in_turn
from harald.benchmark.flops import counted
from harald.config import Config, Economy
from harald.encoder.model import PersonEncoder
from harald.errors import DatasetError
from harald.records import State
from harald.training.batch import Batch, Batches
from harald.training.economy import economical
from harald.training.loop import GradientsOf, gradients, make_optimizer, train_step
from harald.training.recording import new_pool
from harald.training.step import target_losses, trained_parameters

PLAIN, EAGER, COMPILED = "plain loop", "ours, eager", "ours, compiled"
TAUGHT = "ours, compiled, recorded, with a teacher's pass"
RECORDED, LOOSE = "ours, compiled, recorded", "ours, compiled, recorded, not deterministic"
FLOAT8 = "ours, compiled, recorded, float8"
ARMS = (PLAIN, EAGER, COMPILED, RECORDED, TAUGHT, LOOSE, FLOAT8)
STATES = 2  # of a step, so that the encoder reads more than one chat at a time


class Steps:
    """Steps on one batch of states x targets; the plain loop sees as many samples, each with an encoder pass of its
    own, and recomputes all activations. Recorded steps are recorded when they are first asked for.
    """

    def __init__(self, base: QwenImage, encoder: PersonEncoder, states: list[State], config: Config):
        economy = dataclasses.replace(config.train.economy, frozen="plain", compile="off")
        train = dataclasses.replace(
            config.train, phases=(), teacher_weight=0.0, contrast_weight=0.0, override_share=0.0, recorded=False,
            parts=1, drop_group=0.0, economy=economy,
        )  # fmt: skip
        recorded = dataclasses.replace(train, recorded=True)
        samples = train.states_per_batch * train.targets_per_state
        alone = dataclasses.replace(train, states_per_batch=samples, targets_per_state=1, economy=Economy())
        self.base, self.encoder, self.samples = base, encoder, samples
        kinds = {
            "ours": train, "plain": alone, "recorded": recorded,
            "taught": dataclasses.replace(recorded, teacher_weight=1.0),
        }  # fmt: skip
        self.configs = {name: dataclasses.replace(config, train=kind) for name, kind in kinds.items()}
        self.batches = {name: self._batch(c, states) for name, c in self.configs.items()}
        self.optimizer = make_optimizer(encoder, train)
        self.recorders: dict[Any, Any] = {}
        self.pool = new_pool()

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
        """Of our arms: that of the configuration, in bfloat16 and eager but for the changes."""
        return dataclasses.replace(self.configs["ours"].train.economy, **changes)

    def forget(self) -> None:
        """Give back what recordings hold: all activations of a step."""
        self.recorders.clear()
        for parameter in trained_parameters(self.encoder):
            parameter.grad = None
        self.pool = new_pool()
        forget(self.base.device)

    def plain_arms(self) -> dict[str, Callable[[], Any]]:
        """Nothing of them is recorded: beside the memory of recordings theirs may have no room."""
        return {
            EAGER: lambda: self.step("ours", self.economy()),
            COMPILED: lambda: self.step("ours", self.economy(compile="same_twice")),
        }

    def arms(self) -> dict[str, Callable[[], Any]]:
        compiled = self.economy(compile="same_twice")
        return {
            PLAIN: lambda: self.step("plain", Economy()),
            RECORDED: lambda: self.step("recorded", compiled),
            TAUGHT: lambda: self.step("taught", compiled),
        }

    def float8_arms(self) -> dict[str, Callable[[], Any]]:
        """The weights stay in float8 afterwards."""
        return {FLOAT8: lambda: self.step("recorded", self.economy(compile="same_twice", frozen="float8"))}

    def loose(self) -> None:
        with deterministic_algorithms(False):
            self.step("recorded", self.economy(compile="fastest"))

    def token_gradient(self) -> Tensor:
        """Of the loss of our batch's first targets to the tokens, [K, d] over all states: what teaches the encoder."""
        batch, config = self.batches["ours"].to(self.base.device), self.configs["ours"]
        with torch.no_grad():
            tokens = self.encoder.tokens(batch.references)
        tokens.requires_grad_()
        some = batch.targets.piece(0, config.train.targets_per_state)
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
        economy = self.economy(recompute_base=0.0, recompute_encoder=False, targets_at_once=2)
        return counted(lambda: self.step("ours", economy))

    def step(self, name: str, economy: Economy) -> None:
        config = with_economy(self.configs[name], economy)
        with economical(self.base, self.encoder, config):
            train_step(self._of(name, economy), self.encoder, _quiet(self.optimizer), [self.batches[name]], config)


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


def part(bench: Bench) -> Measured:
    """Our step and the plain loop in turn; float8 last, as it changes the weights."""
    config = dataclasses.replace(
        bench.config, train=dataclasses.replace(bench.config.train, states_per_batch=STATES, parts=1)
    )
    base = bench.base()
    steps = Steps(base, bench.encoder(base), bench.states, config)
    timings = in_turn(able(steps.plain_arms(), bench.device), bench.rounds, bench.device)
    timings |= in_turn(able(steps.arms(), bench.device), bench.rounds, bench.device)
    steps.forget()
    flops, exact = steps.flops(), steps.token_gradient()
    timings |= in_turn(able(steps.float8_arms(), bench.device), bench.rounds, bench.device)
    steps.forget()
    steps.step("ours", steps.economy(frozen="float8"))
    groups = deviation(exact, steps.token_gradient(), config.encoder.groups)
    found = {
        THROUGHPUT: ratio(timings.get(PLAIN), timings.get(RECORDED)),
        THROUGHPUT_8: ratio(timings.get(PLAIN), timings.get(FLOAT8)),
        SHARE: shares(timings.get(RECORDED), flops, bench.rate),
    }
    rows = [
        row(name, timing, bench.device, steps.samples, f"{share(timing, flops, bench.rate)}")
        for name, timing in timings.items()
    ]
    text = "\n".join([
        f"A step of {STATES} states x {config.train.targets_per_state} targets of {config.data.image_size} px, "
        f"{config.train.max_references} references each, prompts of unequal length. A step is {flops / 1e12:.1f} TFLOP "
        "with nothing recomputed and without the teacher's pass; "
        f"the machine's rate is {bench.rate / 1e12:.0f} TFLOP/s.",
        "", "| arm | a step | fastest to slowest | a sample | 1,000 samples | peak memory | share of the rate |",
        "|---|---|---|---|---|---|---|", *rows, "",
        "Gradient of the tokens in float8 against bfloat16: "
        + ", ".join(f"{name} cosine {cosine:.4f}, norm {norm:.3f}" for name, (cosine, norm) in groups.items()) + ".",
    ])  # fmt: skip
    return Measured(timings, found, text, {"flops": flops, "samples": steps.samples, "float8_gradients": groups})

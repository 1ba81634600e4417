"""A training step: ours, and the loop as public trainers write it, on the same pictures of the same persons."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from harald.base.compiled import compiled
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.errors import DatasetError
from harald.records import State
from harald.training.batch import Batch, Batches
from harald.training.loop import gradients, make_optimizer, train_step
from harald.training.step import target_losses

PLAIN, EAGER, COMPILED = "plain loop", "ours, eager", "ours, compiled"
LOOSE, FLOAT8 = "ours, compiled, not deterministic", "ours, compiled, float8"
ARMS = (PLAIN, EAGER, COMPILED, LOOSE, FLOAT8)


class Steps:
    """Steps on one batch of states x targets; the plain loop sees as many samples, each with an encoder pass of its
    own, and recomputes all activations.
    """

    def __init__(self, base: QwenImage, encoder: PersonEncoder, states: list[State], config: Config):
        train = dataclasses.replace(
            config.train, phases=(), teacher_weight=0.0, contrast_weight=0.0, override_share=0.0, recorded=False,
            parts=1, drop_group=0.0,
        )  # fmt: skip
        samples = train.states_per_batch * train.targets_per_state
        alone = dataclasses.replace(train, states_per_batch=samples, targets_per_state=1)
        self.base, self.encoder, self.samples = base, encoder, samples
        self.configs = {name: dataclasses.replace(config, train=t) for name, t in (("ours", train), ("plain", alone))}
        self.batches = {name: self._batch(c, states) for name, c in self.configs.items()}
        self.optimizer = make_optimizer(encoder, train)

    def _batch(self, config: Config, states: list[State]) -> Batch:
        """The first one with the most references; latents at hand, as from the cache."""
        base, encoder = self.base, self.encoder
        shape, mu = base.latent_shape(config.data.image_size)
        batches = Batches(config, states, shape, mu, None, encoder.chats, base.tokenize)
        wanted = (config.train.states_per_batch, config.train.max_references, config.train.targets_per_state)
        for step in range(64):
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

    def arms(self) -> dict[str, Callable[[], None]]:
        return {
            PLAIN: lambda: self._step("plain", recompute=True),
            EAGER: lambda: self._step("ours"),
            COMPILED: lambda: self._compiled(deterministic=True),
            LOOSE: lambda: self._compiled(deterministic=False),
        }

    def float8_arms(self) -> dict[str, Callable[[], None]]:
        """Once the base model's layers are in float8."""
        return {FLOAT8: lambda: self._compiled(deterministic=True)}

    def token_gradient(self) -> Tensor:
        """Of our batch's loss to the tokens, [K, d] over all states: what the encoder learns from."""
        batch, config = self.batches["ours"].to(self.base.device), self.configs["ours"]
        with torch.no_grad():
            tokens = self.encoder.tokens(batch.references)
        tokens.requires_grad_()
        loss = target_losses(self.base, tokens, batch.targets, config)[0].mean()
        return torch.autograd.grad(loss, tokens)[0].float().sum(0)

    def flops(self) -> int:
        """Of one of our steps, forward and backward, nothing recomputed; products of matrices and attention alone."""
        with FlopCounterMode(display=False) as counter:
            self._step("ours")
        return counter.get_total_flops()

    def _compiled(self, deterministic: bool) -> None:
        with compiled(self.base.transformer, deterministic), deterministic_algorithms(deterministic):
            self._step("ours")

    def _step(self, name: str, recompute: bool = False) -> None:
        config, optimizer = self.configs[name], self.optimizer
        with recomputing(self.base, self.encoder, recompute):
            of = gradients(self.base, self.encoder, config)
            train_step(of, self.encoder, _quiet(optimizer), [self.batches[name]], config)


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
def recomputing(base: QwenImage, encoder: PersonEncoder, on: bool) -> Iterator[None]:
    """Inside, activations of both models are recomputed in the backward pass, or none is."""
    transformer, language = base.transformer, encoder.vlm.language_model
    (transformer.enable_gradient_checkpointing if on else transformer.disable_gradient_checkpointing)()
    if on:
        language.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        language.gradient_checkpointing_disable()
    language.train(on)
    try:
        yield
    finally:
        transformer.disable_gradient_checkpointing()
        language.gradient_checkpointing_disable()
        language.eval()


@contextlib.contextmanager
def deterministic_algorithms(on: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(on)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)

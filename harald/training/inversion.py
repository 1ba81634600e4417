"""Textual Inversion: optimise K token vectors for each state through the frozen base model, at either injection point.

Gal et al. 2022, arXiv 2208.01618. This is what the encoder replaces by one forward pass.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import VECTORS, Config, Point
from harald.data.images import load_picture, target_tensor
from harald.determinism import generator, rng
from harald.injection.points import plain
from harald.records import View
from harald.training.batch import Target, Targets, collate
from harald.training.flow import draw_times
from harald.training.step import flow_losses

PROBE_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def invert(
    base: BaseModel,
    persons: Sequence[Sequence[View]],
    held_out: Sequence[Sequence[View]],
    point: Point,
    config: Config,
    told: Callable[[int, str], None] = lambda done, said: None,
    begin: Tensor | None = None,
) -> tuple[Tensor, list[dict[str, float]]]:
    """Tokens [n, K, d] that draw the n persons' views, and the curve: step, its loss, loss on the held-out views (fixed
    noise), means over all persons' targets. Side by side, each as it would be alone but for rounding.

    held_out: of each person, or nothing at all. The prompts are silent about the state. told: hears of every step, and
    what there is to say of it. begin: tokens [n, K, D] to begin with, of each person, in place of the class word. The
    step size is relative to the scale of what it begins with.
    """
    config = dataclasses.replace(config, injection=dataclasses.replace(config.injection, point=point))
    if begin is None:
        start, scale = initial_tokens(base, config)
    else:
        start, scale = begin, _scales(begin, VECTORS[point])
    delta = torch.zeros(len(persons), *start.shape[-2:], device=start.device, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=config.poc.learning_rate)  # of one number alone: no person sees another
    latents = [encoded(base, views, config) for views in persons]
    probe = [target for owner, views in enumerate(held_out) for target in probe_targets(base, views, config, owner)]
    curve, every = [], max(1, config.poc.steps // 12)

    def probed() -> dict[str, float]:
        return {"held_out": probe_loss(base, start + scale * delta.detach(), probe, config)} if probe else {}

    for step in range(config.poc.steps):
        targets = draw_targets(base, latents, step, config)
        losses = flow_losses(base, start + scale * delta, targets, config).unflatten(0, (len(persons), -1)).mean(1)
        row = {"step": step, "loss": losses.mean().item(), **(probed() if step % every == 0 else {})}
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        curve.append(row)
        told(step + 1, f"{point} point, loss {row['loss']:.4f}")
    curve.append({"step": config.poc.steps, "loss": curve[-1]["loss"], **probed()})
    return (start + scale * delta).detach(), curve


def refined(
    base: BaseModel,
    tokens: Tensor,
    persons: Sequence[Sequence[View]],
    point: Point,
    config: Config,
    told: Callable[[int, str], None] = lambda done, said: None,
) -> Tensor:
    """Predicted tokens [n, K, D] after a few steps of Textual Inversion on the n persons' own pictures: config.refine.

    What one forward pass misses (a face, the colour of a pendant) is in these pictures, and near the tokens. The views'
    prompts need not tell what is seen: few steps do not take the scene along (docs/log.md, 2026-11-27).
    """
    settings = config.refine
    poc = dataclasses.replace(
        config.poc, steps=settings.steps, batch=settings.batch, learning_rate=settings.learning_rate
    )
    begin = tokens.to(base.device, torch.float32)
    return invert(base, persons, [], point, dataclasses.replace(config, poc=poc), told, begin)[0]


def initial_tokens(base: BaseModel, config: Config) -> tuple[Tensor, Tensor]:
    """The class word K times with a little noise, [K, d], and the root mean square of the class word's own vector, [d];
    [K, 2 d] and [2 d] at both points.
    """
    point = config.injection.point
    draws, made = generator(config.seed, "inversion", point), []
    for row in [_own_vector(base, end, config) for end in (("input", "output") if point == "both" else (point,))]:
        scale = row.square().mean().sqrt().item()
        noise = torch.randn(config.encoder.tokens, len(row), generator=draws)
        made.append((row + 0.1 * scale * noise.to(row), torch.full_like(row, scale)))
    tokens, scales = zip(*made, strict=True)
    return torch.cat(tokens, -1), torch.cat(scales)


def _scales(tokens: Tensor, vectors: int) -> Tensor:
    """Root mean square of each person's tokens [n, K, D], as [n, 1, D]; of each vector of a slot by itself."""
    halves = tokens.unflatten(-1, (vectors, -1)).square().mean((1, 3)).sqrt()
    return halves.repeat_interleave(tokens.shape[-1] // vectors, 1)[:, None]


@torch.no_grad()
def _own_vector(base: BaseModel, point: str, config: Config) -> Tensor:
    """[d] that the class word has at the point."""
    word = config.injection.class_word
    if point == "input":
        return base.word_embeddings(torch.tensor(base.tokenize(f" {word}")))[-1].float()
    return plain(base, f"a photo of {word}")[len(base.tokenize(f"a photo of {word}")) - 1].float()


@torch.no_grad()
def encoded(base: BaseModel, views: Sequence[View], config: Config) -> dict[View, Tensor]:
    """Latents [s, c] of each view."""
    pixels = torch.stack([target_tensor(load_picture(view.image), config.data.image_size) for view in views])
    return dict(zip(views, base.encode_images(pixels).float().cpu(), strict=True))


def draw_targets(base: BaseModel, persons: Sequence[dict[View, Tensor]], step: int, config: Config) -> Targets:
    """poc.batch targets of each person, whose views have these latents."""
    shape, mu = base.latent_shape(config.data.image_size)
    targets = []
    for owner, latents in enumerate(persons):
        picked = rng(config.seed, "inversion", step).choices(list(latents), k=config.poc.batch)
        for slot, view in enumerate(picked):
            draws = generator(config.seed, "inversion", step, slot)
            t = draw_times(draws, config.train.uniform_timesteps, mu)
            targets.append(_target(owner, view, latents[view], t, torch.randn(shape, generator=draws), config))
    return collate(base.tokenize, targets, config.encoder.tokens, config)


def probe_targets(base: BaseModel, views: Sequence[View], config: Config, owner: int = 0) -> list[Target]:
    """The same times and noise at every call, so that the probe's curve is smooth."""
    shape, _ = base.latent_shape(config.data.image_size)
    return [
        _target(owner, view, latents, torch.tensor([t]),
                torch.randn(shape, generator=generator(config.seed, "probe", view.name, str(t))), config)
        for view, latents in encoded(base, views, config).items()
        for t in PROBE_TIMES
    ]  # fmt: skip


@torch.no_grad()
def probe_loss(base: BaseModel, tokens: Tensor | None, probe: list[Target], config: Config) -> float:
    """Mean flow-matching loss of fixed targets. tokens: [n, K, d], or None for the prompt alone."""
    if tokens is None:
        probe = [dataclasses.replace(target, slots=[]) for target in probe]
        tokens = torch.zeros(1, 0, base.width)
    targets = collate(base.tokenize, probe, tokens.shape[1], config)
    return flow_losses(base, tokens, targets, config).mean().item()


def _target(owner: int, view: View, latents: Tensor, t: Tensor, noise: Tensor, config: Config) -> Target:
    return Target(owner, view.person_prompt, None, latents, t, noise, list(range(config.encoder.tokens)))

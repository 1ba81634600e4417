"""One step: references -> tokens -> the frozen base model's velocity -> loss."""

from dataclasses import replace

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import VECTORS, Config, Train
from harald.encoder.model import PersonEncoder
from harald.injection.points import conditioned
from harald.training.batch import Batch, Targets
from harald.training.contrast import contrastive_loss
from harald.training.flow import interpolate, velocity_loss, velocity_target

NAMES = ("loss", "flow", "teacher", "contrast")  # what a step measures, beside its gradient


def measured_loss(base: BaseModel, encoder: PersonEncoder, batch: Batch, config: Config) -> tuple[Tensor, Tensor]:
    """The loss, and what was measured: of each of NAMES its value, then whether there is one (0 or 1), float32."""
    loss, measured = training_loss(base, encoder, batch, config)
    measured, nothing = {"loss": loss.detach(), **measured}, torch.zeros_like(loss)
    values = [measured.get(name, nothing).float() for name in NAMES]
    return loss, torch.stack(values + [nothing + (name in measured) for name in NAMES]).detach()


def measured_gradients(
    base: BaseModel, encoder: PersonEncoder, batch: Batch, config: Config
) -> tuple[list[Tensor], Tensor]:
    """Of each of the encoder's trained parameters, and what was measured, see `measured_loss`."""
    loss, values = measured_loss(base, encoder, batch, config)
    return list(torch.autograd.grad(loss, trained_parameters(encoder), materialize_grads=True)), values


def trained_parameters(encoder: PersonEncoder) -> list[torch.nn.Parameter]:
    return [p for p in encoder.parameters() if p.requires_grad]


def training_loss(
    base: BaseModel, encoder: PersonEncoder, batch: Batch, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scalar loss with a graph to the encoder, and its detached parts. One encoder pass serves a state's targets.

    The losses of a step's parts add up to that of the whole batch (contrast sees a part's states alone: their mean).
    """
    train, tokens = config.train.at(batch.step), encoder.tokens(batch.references)
    base.use_domain(batch.domain)
    at_once = train.economy.targets_at_once
    if 0 < at_once < len(batch.targets) and tokens.requires_grad:
        loss, parts = _in_pieces(base, tokens, batch, config, at_once)
    else:
        loss, parts = _drawn_loss(base, tokens, batch.targets, train, config)
    if batch.contrast and len(batch.pairs) > 1:
        other = encoder.tokens(batch.contrast)
        vectors = VECTORS[config.injection.point]
        contrast = contrastive_loss(tokens, other, config.train.contrast_temperature, vectors) / batch.parts
        loss = loss + train.contrast_weight * contrast
        parts["contrast"] = contrast.detach()
    return loss, parts


def _drawn_loss(
    base: BaseModel, tokens: Tensor, targets: Targets, train: Train, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """What these targets add to the step's loss, and its detached parts. train: as it is at this step."""
    shown = targets.shown.to(tokens.device)
    losses, taught = target_losses(base, tokens, targets, config)
    count, to_draw = targets.of.to(tokens.device)
    flow = (losses * shown).sum() / to_draw.clamp(min=1)
    teacher = (taught * (1 - shown * (1 - train.teacher_beside))).sum() / count
    loss, parts = train.flow_weight * flow, {"flow": flow.detach()}
    if targets.described is not None:
        loss = loss + train.teacher_weight * teacher
        parts["teacher"] = teacher.detach()
    return loss, parts


def _in_pieces(
    base: BaseModel, tokens: Tensor, batch: Batch, config: Config, at_once: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """`_drawn_loss` of so many targets at once, each with a backward pass to the tokens of its own: the activations of
    the base model are never there for more of them.
    """
    leaf, train = tokens.detach().requires_grad_(), config.train.at(batch.step)
    targets = replace(batch.targets, pixels=None, latents=_latents(base, batch.targets))
    sums, gradient = dict[str, Tensor](), torch.zeros_like(leaf)
    for first in range(0, len(targets), at_once):
        loss, parts = _drawn_loss(base, leaf, targets.piece(first, first + at_once), train, config)
        gradient = gradient + torch.autograd.grad(loss, leaf, materialize_grads=True)[0]
        for name, value in {"loss": loss.detach(), **parts}.items():
            sums[name] = sums[name] + value if name in sums else value
    carrier = (tokens * gradient).sum()  # its gradient to the tokens is theirs
    return sums.pop("loss") + (carrier - carrier.detach()), sums


def flow_losses(base: BaseModel, tokens: Tensor, targets: Targets, config: Config) -> Tensor:
    """Flow-matching loss of each target, [n]. tokens: [states, K, d]. All go through the base model together."""
    return target_losses(base, tokens, targets, config)[0]


def target_losses(base: BaseModel, tokens: Tensor, targets: Targets, config: Config) -> tuple[Tensor, Tensor]:
    """Squared errors of each target's velocity, [n]: against the picture's own, and against what the base model itself
    predicts at the same place from the full description (0 where there is none): the picture's own noise is out of it.
    Patches count as the targets' weights say.
    """
    side, latents = config.data.image_size, _latents(base, targets)
    noise, t = targets.noise.to(latents), targets.t.to(latents.device)
    noisy = interpolate(latents, noise, t)
    states = conditioned(base, targets.layout, tokens.flatten(0, 1))
    predicted = base.velocity(noisy, t, states, side, targets.layout.mask)
    weights = None if targets.weights is None else targets.weights.to(latents.device)
    flow = velocity_loss(predicted, velocity_target(latents, noise), weights)
    if targets.described is None:
        return flow, torch.zeros_like(flow)
    with torch.no_grad():
        words = conditioned(base, targets.described, tokens[:0, 0])
        taught = base.velocity(noisy, t, words, side, targets.described.mask)
    return flow, velocity_loss(predicted, taught, weights)


def _latents(base: BaseModel, targets: Targets) -> Tensor:
    """[n, s, c] float32; the cache holds the very numbers that encoding gives."""
    if targets.latents is not None:
        return targets.latents.to(base.device, torch.float32)
    assert targets.pixels is not None
    with torch.no_grad():
        return base.encode_images(targets.pixels).float()

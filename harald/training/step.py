"""One step: references -> tokens -> the frozen base model's velocity -> loss."""

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.injection.points import conditioned
from harald.training.batch import Batch, Targets
from harald.training.contrast import contrastive_loss
from harald.training.flow import interpolate, velocity_loss, velocity_target


def training_loss(
    base: BaseModel, encoder: PersonEncoder, batch: Batch, config: Config
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scalar loss with a graph to the encoder, and its detached parts. One encoder pass serves a state's targets."""
    tokens = encoder.tokens(batch.references)
    base.use_domain(batch.domain)
    loss = flow_losses(base, tokens, batch.targets, config).mean()
    parts = {"flow": loss.detach()}
    if batch.contrast and len(batch.pairs) > 1:
        contrast = contrastive_loss(tokens, encoder.tokens(batch.contrast), config.train.contrast_temperature)
        loss = loss + config.train.contrast_weight * contrast
        parts["contrast"] = contrast.detach()
    return loss, parts


def flow_losses(base: BaseModel, tokens: Tensor, targets: Targets, config: Config) -> Tensor:
    """Flow-matching loss of each target, [n]. tokens: [states, K, d]. All go through the base model together."""
    states = conditioned(base, targets.layout, tokens.flatten(0, 1))
    latents = _latents(base, targets)
    noise, t = targets.noise.to(latents), targets.t.to(latents.device)
    noisy = interpolate(latents, noise, t)
    predicted = base.velocity(noisy, t, states, config.data.image_size, targets.layout.mask)
    return velocity_loss(predicted, velocity_target(latents, noise))


def _latents(base: BaseModel, targets: Targets) -> Tensor:
    """[n, s, c] float32; encoded one picture at a time, so that the cache holds the very same numbers."""
    if targets.latents is not None:
        return targets.latents.to(base.device, torch.float32)
    assert targets.pixels is not None
    with torch.no_grad():
        return torch.cat([base.encode_images(picture[None]).float() for picture in targets.pixels])

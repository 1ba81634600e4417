"""One step: references -> tokens -> the frozen base model's velocity -> loss."""

from collections.abc import Callable

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import Config
from harald.injection.points import condition
from harald.injection.prompt import ANY, parse
from harald.training.batch import Batch, Target
from harald.training.contrast import contrastive_loss
from harald.training.flow import interpolate, velocity_loss, velocity_target

Encode = Callable[[list], Tensor]


def training_loss(base: BaseModel, encode: Encode, batch: Batch, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """Scalar loss with a graph to the encoder, and its detached parts. One encoder pass serves a state's targets."""
    tokens = encode(batch.references)
    base.use_domain(batch.domain)
    per_target = flow_losses(base, tokens, batch.targets, config)
    loss = per_target.mean()
    parts = {"flow": loss.detach()}
    if batch.contrast and len(batch.pairs) > 1:
        contrast = contrastive_loss(tokens, encode(batch.contrast), config.train.contrast_temperature)
        loss = loss + config.train.contrast_weight * contrast
        parts["contrast"] = contrast.detach()
    return loss, parts


def flow_losses(base: BaseModel, tokens: Tensor, targets: list[Target], config: Config) -> Tensor:
    """Flow-matching loss of each target, [n]. tokens: [states, K, d].

    Targets whose conditioning has the same length go through the base model together; nothing is padded, because masked
    batches of unequal length are not bit-equal to single samples.
    """
    states = [_condition(base, target, tokens[target.owner], config) for target in targets]
    lengths: dict[int, list[int]] = {}
    for index, state in enumerate(states):
        lengths.setdefault(len(state), []).append(index)
    losses: list[Tensor] = [torch.empty(0)] * len(targets)
    for members in lengths.values():
        group = [targets[i] for i in members]
        latents = torch.cat([_latents(base, target) for target in group])
        noise = torch.stack([target.noise for target in group]).to(latents)
        t = torch.cat([target.t for target in group]).to(latents.device)
        predicted = base.velocity(
            interpolate(latents, noise, t), t, torch.stack([states[i] for i in members]), config.data.image_size
        )
        for index, loss in zip(members, velocity_loss(predicted, velocity_target(latents, noise)), strict=True):
            losses[index] = loss
    return torch.stack(losses)


def _condition(base: BaseModel, target: Target, tokens: Tensor, config: Config) -> Tensor:
    persons = {ANY: tokens[target.slots]} if target.slots else {}
    return condition(base, parse(target.prompt), persons, config.injection.point, config.injection.class_word)


def _latents(base: BaseModel, target: Target) -> Tensor:
    """[1, s, c] float32; encoded one picture at a time, so that the cache holds the very same numbers."""
    if target.latents is not None:
        return target.latents[None].to(base.device, torch.float32)
    assert target.pixels is not None
    with torch.no_grad():
        return base.encode_images(target.pixels[None]).float()

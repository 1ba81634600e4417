"""Rectified flow (Liu et al. 2022, arXiv 2209.03003) as Qwen-Image uses it: t = 0 is the picture, t = 1 is noise."""

import math

import torch
from torch import Tensor


def interpolate(latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = (1 - t) x_0 + t noise. latents, noise: [b, s, c]; t: [b]."""
    t = t.to(latents)[:, None, None]
    return (1 - t) * latents + t * noise


def velocity_target(latents: Tensor, noise: Tensor) -> Tensor:
    """d x_t / d t = noise - x_0, [b, s, c]."""
    return noise - latents


def velocity_loss(predicted: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, [b], in float32. weights: [b, s] of the patches, their mean 1."""
    errors = (predicted.float() - target.float()).square()
    return errors.flatten(1).mean(1) if weights is None else (errors.mean(2) * weights).mean(1)


def shift(t: Tensor, mu: float) -> Tensor:
    """The exponential time shift of FlowMatchEulerDiscreteScheduler: more mass near noise for larger pictures."""
    return math.exp(mu) / (math.exp(mu) + 1 / t - 1)


def draw_times(generator: torch.Generator, uniform_share: float, mu: float) -> Tensor:
    """One time in (0, 1), [1]: uniform or logit-normal(0, 1), then shifted.

    Logit-normal alone puts almost nothing above t = 0.95, where the layout is decided: a small base trained so ignored
    its scenes. The uniform part gives that region real mass.
    """
    is_uniform, u, normal = (
        torch.rand(1, generator=generator),
        torch.rand(1, generator=generator),
        torch.randn(1, generator=generator),
    )
    t = torch.where(is_uniform < uniform_share, u, normal.sigmoid())
    return shift(t.clamp(1e-4, 1 - 1e-4), mu)

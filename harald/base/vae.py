"""Qwen-Image's VAE alone: all that encoding pictures needs of the base model."""

import functools
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from torch import Tensor

from harald import hub
from harald.config import ModelRef

GROUP = 8  # pictures that are encoded at once


def load_vae(cache: Path, ref: ModelRef, device: torch.device, dtype: torch.dtype) -> Any:
    """The VAE of a base model in the HF cache, frozen, in evaluation mode. Raises ModelError."""
    return hub.load(AutoencoderKLQwenImage, cache, ref, "vae", dtype=dtype).to(device).requires_grad_(False).eval()


def encode_images(vae: Any, pixels: Tensor) -> Tensor:
    """[b, 3, h, w] in -1..1 -> [b, s, c] latents: the mode, normalised as the VAE's config says, 2 x 2 packed.

    Always GROUP pictures at a time, empty ones filling the last group: another number would give a picture other last
    bits, its place among others does not. So training and the latent cache agree.
    """
    return torch.cat([_encode_group(vae, group) for group in pixels.to(vae.device, vae.dtype).split(GROUP)])


def _encode_group(vae: Any, pixels: Tensor) -> Tensor:
    empty = pixels.new_zeros(GROUP - len(pixels), *pixels.shape[1:])
    moments = vae.encode(torch.cat([pixels, empty])[:, :, None])  # the VAE is 3-D: one frame
    mean, std = (_channels(tuple(vae.config[name]), vae.device, vae.dtype) for name in ("latents_mean", "latents_std"))
    latents = (moments.latent_dist.mode() - mean) / std
    b, c, _, h, w = latents.shape
    return QwenImagePipeline._pack_latents(latents[:, :, 0], b, c, h, w)[: len(pixels)]  # type: ignore[not-callable]


@functools.cache  # made once: the host waits for the device where it hands over numbers
def _channels(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype).view(1, -1, 1, 1, 1)

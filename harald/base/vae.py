"""Qwen-Image's VAE alone: all that encoding pictures needs of the base model."""

from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import Tensor

from harald import hub
from harald.config import ModelRef


def load_vae(cache: Path, ref: ModelRef, device: torch.device, dtype: torch.dtype) -> Any:
    """The VAE of a base model in the HF cache, frozen, in evaluation mode. Raises ModelError."""
    others: Any = dict.fromkeys(("transformer", "text_encoder", "tokenizer", "scheduler"))  # None: not loaded
    pipeline = hub.load(QwenImagePipeline, cache, ref, dtype=dtype, **others)
    return pipeline.vae.to(device).requires_grad_(False).eval()


def encode_images(vae: Any, pixels: Tensor) -> Tensor:
    """[b, 3, h, w] in -1..1 -> [b, s, c] latents: the mode, normalised as the VAE's config says, 2 x 2 packed.

    Training and the latent cache both call this, one picture at a time: a picture in a batch of several gets other
    last bits.
    """
    moments = vae.encode(pixels.to(vae.device, vae.dtype)[:, :, None])  # the VAE is 3-D: one frame
    latents = (moments.latent_dist.mode() - _channel(vae, "latents_mean")) / _channel(vae, "latents_std")
    b, c, _, h, w = latents.shape
    return QwenImagePipeline._pack_latents(latents[:, :, 0], b, c, h, w)  # type: ignore[not-callable]


def _channel(vae: Any, name: str) -> Tensor:
    return torch.tensor(vae.config[name], device=vae.device, dtype=vae.dtype).view(1, -1, 1, 1, 1)

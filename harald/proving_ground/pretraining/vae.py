"""The VAE of the small Qwen-Image: sharp where glasses and jewellery are, latents of about unit scale."""

import math
from typing import Any

import torch
from torch import Tensor

from harald import determinism
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.pool import Pictures, Pool
from harald.proving_ground.pretraining.segment import Segment, train
from harald.proving_ground.pretraining.single_frame import decode, encode, single_frame, zero_unused

DETAIL_WEIGHT = 4.0  # of a pixel of glasses, jewellery or eyes, which are few and vanish otherwise; of a mouth 2.5
KL_WEIGHT = 3e-4  # per latent element; leaves a standard deviation of about 1
CHUNK = 128  # pictures that are encoded at once where nothing is trained
STATISTICS = 4096  # pictures that the scale of the latents is taken from


def run(segment: Segment) -> dict[str, float]:
    """Train the VAE of the folder; write it with the scale of its latents. Returns held-out PSNR, dB."""
    device = determinism.device()
    with segment.pool() as pool:
        vae = weights.load_pipeline(segment.weights, device).vae.requires_grad_(True)
        with single_frame(vae):
            train([vae], VaeLoss(vae, pool, segment, device), segment.plan(betas=(0.9, 0.99)), segment.log_row)
            zero_unused(vae)
            weights.rounded([vae])
            set_scale(vae, pool.on_device("images", segment.settings.states, device).flatten(0, 1))
            metrics = held_out_psnr(vae, pool.wait_held_out(), device)
    weights.save(vae, segment.weights / weights.QWEN_IMAGE / "vae")
    return metrics


class VaeLoss:
    """Loss of a step: L1 of pixels and of their gradients, weighted, L1 at a quarter of the size, and a small KL."""

    def __init__(self, vae: Any, pool: Pool, segment: Segment, device: torch.device):
        self.vae, self.pool, self.segment, self.device = vae, pool, segment, device
        self.encoder: Any = vae.encoder
        self.decoder: Any = vae.decoder
        if segment.settings.compile:
            self.encoder = torch.compile(vae.encoder, dynamic=False)
            self.decoder = torch.compile(vae.decoder, dynamic=False)

    def __call__(self, step: int) -> dict[str, Tensor]:
        draw = self.segment.generator(self.device, step)
        pictures, weight = self._batch(self.segment.visible(step), draw)
        with autocast(self.device):
            mean, log_variance = encode(self.encoder, self.vae, pictures)
            noise = torch.randn(mean.shape, generator=draw, device=self.device)
            drawn = decode(self.decoder, self.vae, mean + (0.5 * log_variance).exp() * noise)
        pixels = picture_loss(drawn - pictures, weight)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return {"loss": pixels + KL_WEIGHT * kl, "pixels": pixels, "kl": kl}

    def _batch(self, states: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures [b, 3, s, s] in -1..1 and the weight of their pixels [b, 1, s, s]."""
        images = self.pool.on_device("images", states, self.device).flatten(0, 1)
        detail = self.pool.on_device("detail", states, self.device).flatten(0, 1)
        index = torch.randint(len(images), (self.segment.settings.batch,), generator=draw, device=self.device)
        return as_pictures(images[index]), 1 + (DETAIL_WEIGHT - 1) * detail[index, None].float() / 255


def picture_loss(error: Tensor, weight: Tensor) -> Tensor:
    """error: [b, 3, s, s]; weight: [b, 1, s, s]. Scalar."""
    b, c, height, width = error.shape
    across = (error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    coarse = error.reshape(b, c, height // 4, 4, width // 4, 4).mean((3, 5))
    return (error.abs() * weight).mean() + across.mean() + down.mean() + coarse.abs().mean()


def as_pictures(images: Tensor) -> Tensor:
    """uint8 [b, s, s, 3] -> [b, 3, s, s] in -1..1; its memory stays channels last, as the convolutions like it."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def set_scale(vae: Any, images: Tensor) -> None:
    """Write mean and standard deviation of each latent channel into the config, as the pipeline reads them.

    images: uint8 [n, s, s, 3] of held-in persons; every k-th of them, about STATISTICS, is encoded.
    """
    chosen = images[:: max(1, len(images) // STATISTICS)]
    latents = torch.cat([encode_mean(vae, part) for part in chosen.split(CHUNK)])
    mean, std = latents.double().mean((0, 2, 3)), latents.double().std((0, 2, 3))
    vae.register_to_config(
        latents_mean=[round(v, 4) for v in mean.tolist()], latents_std=[round(v, 4) for v in std.tolist()]
    )


@torch.no_grad()
def encode_mean(vae: Any, images: Tensor) -> Tensor:
    """uint8 [b, s, s, 3] -> mean of the posterior [b, z, s / 8, s / 8], not normalised. Inside single_frame."""
    with autocast(images.device):
        return encode(vae.encoder, vae, as_pictures(images))[0]


@torch.no_grad()
def held_out_psnr(vae: Any, pictures: Pictures, device: torch.device) -> dict[str, float]:
    """dB over all pixels, and over those of glasses and jewellery. Inside single_frame."""
    states = len(pictures.states)
    images = pictures.on_device("images", states, device).flatten(0, 1)
    detail = pictures.on_device("detail", states, device).flatten(0, 1)
    squares, inside, pixels = (torch.zeros((), device=device, dtype=torch.float64) for _ in range(3))
    for image, mask in zip(images.split(CHUNK), detail.split(CHUNK), strict=True):
        with autocast(device):
            drawn = decode(vae.decoder, vae, encode_mean(vae, image)).clamp(-1, 1)
        error = (drawn - as_pictures(image)).square().mean(1)
        squares += error.sum()
        inside += (error * (mask > 128)).sum()
        pixels += (mask > 128).sum()
    return {"psnr": _decibel(squares / detail.numel()), "psnr_detail": _decibel(inside / pixels.clamp(min=1))}


def _decibel(error: Tensor) -> float:
    """error: mean square of values in -1..1."""
    return round(-10 * math.log10(max(error.item(), 1e-12) / 4), 3)

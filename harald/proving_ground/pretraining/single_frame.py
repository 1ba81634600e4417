"""A picture is a video of one frame: of a causal 3-D kernel it meets only the last time slice."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d
from torch import Tensor, nn
from torch.nn import functional as F


class LastSlice(QwenImageCausalConv3d):
    """The same numbers as the stock convolution for a first and only frame, at a third of the work."""

    def forward(self, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
        assert x.shape[2] == 1 and cache_x is None, "one frame only"
        padding = [int(self._padding[2]), int(self._padding[0])]  # height, width; the stock class keeps F.pad's order
        return F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=padding)[:, :, None]


@contextmanager
def single_frame(vae: Any) -> Iterator[None]:
    """vae: an AutoencoderKLQwenImage. Inside, the convolutions are 2-D; afterwards they are stock again."""
    convolutions = [m for m in vae.modules() if type(m) is QwenImageCausalConv3d]
    for module in convolutions:
        module.__class__ = LastSlice
    try:
        yield
    finally:
        for module in convolutions:
            module.__class__ = QwenImageCausalConv3d


def zero_unused(vae: Any) -> None:
    """Set to zero what a single frame never meets: earlier time slices, and the convolutions along time."""
    along_time = {id(m.time_conv) for m in vae.modules() if isinstance(getattr(m, "time_conv", None), nn.Module)}
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, QwenImageCausalConv3d):
                module.weight[:, :, :-1] = 0
                if id(module) in along_time:
                    for parameter in module.parameters():
                        parameter.zero_()


def encode(encoder: nn.Module, vae: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """[b, 3, h, w] in -1..1 -> mean and log variance of the latents, [b, z, h / 8, w / 8], float32.

    encoder: vae.encoder, or a compiled form of it.
    """
    moments = vae.quant_conv(encoder(pictures[:, :, None]))[:, :, 0].float()
    mean, log_variance = moments.chunk(2, dim=1)
    return mean, log_variance.clamp(-30, 20)


def decode(decoder: nn.Module, vae: Any, latents: Tensor) -> Tensor:
    """[b, z, h / 8, w / 8] -> [b, 3, h, w], float32, not clamped. decoder: vae.decoder, or a compiled form of it."""
    return decoder(vae.post_quant_conv(latents[:, :, None]))[:, :, 0].float()

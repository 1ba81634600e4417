"""Hidden states of the queries -> person tokens in the base model's width."""

import torch
from torch import Tensor, nn


class LayerMix(nn.Module):
    """Learned softmax mix over decoder layers, each at unit RMS: pre-norm and post-norm states differ in scale."""

    def __init__(self, layers: int):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))

    def forward(self, states: Tensor) -> Tensor:
        """[layers, b, k, h] -> [b, k, h]."""
        unit = nn.functional.rms_norm(states.float(), states.shape[-1:], eps=1e-6)
        return torch.einsum("l,lbkh->bkh", self.logits.softmax(0), unit)


class VectorsNorm(nn.RMSNorm):
    """RMSNorm of each of the equally wide vectors that stand side by side in a slot, as if it was there alone."""

    def __init__(self, width: int, vectors: int):
        super().__init__(width, eps=1e-6)
        self.vectors = vectors

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(x.chunk(self.vectors, -1), self.weight.chunk(self.vectors), strict=True)
        return torch.cat([nn.functional.rms_norm(part, part.shape[-1:], w, self.eps) for part, w in parts], -1)


class Connector(nn.Module):
    """A few bidirectional layers over the K slots, an MLP to width d, and an RMSNorm that starts at real statistics.

    scale: [d] root mean square per channel of what the injection point expects (see injection.points.calibration);
    vectors: of a slot, so many that d is all of theirs together.
    """

    def __init__(self, hidden: int, width: int, layers: int, scale: Tensor, vectors: int):
        super().__init__()
        self.into = nn.Linear(hidden, width)
        block = nn.TransformerEncoderLayer(
            width, max(1, width // 64), 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(scale)))
        self.norm = VectorsNorm(len(scale), vectors)
        with torch.no_grad():
            self.norm.weight.copy_(scale)

    def forward(self, states: Tensor) -> Tensor:
        """[b, k, h] -> [b, k, d]."""
        return self.norm(self.out(self.blocks(self.into(states))))

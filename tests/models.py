"""The tiny models, loaded once per test process."""

import functools
import tempfile
from pathlib import Path

import torch

from harald import config
from harald.base.qwen_image import QwenImage
from harald.encoder.model import PersonEncoder
from harald.proving_ground import mini_models

CPU, FLOAT = torch.device("cpu"), torch.float32


@functools.cache
def cache() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="harald-test-cache-"))
    models = config.tiny().models
    mini_models.write(folder, models.base)
    mini_models.write(folder, models.encoder)
    return folder


@functools.cache
def base() -> QwenImage:
    models = config.tiny().models
    return QwenImage.load(cache(), models.base, models.lora, CPU, FLOAT)


def encoder(seed: int = 0, point: str = "output") -> PersonEncoder:
    """A new one at every call: tests change it."""
    c = config.tiny()
    return PersonEncoder.new(
        cache(), c.encoder, c.models.encoder, torch.ones(base().width * config.VECTORS[point]), point,
        c.models.base.repo, seed, CPU, FLOAT,
    )  # fmt: skip

"""The small models of a weights folder, and which of them are there."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage

from harald import determinism, hub
from harald.base.qwen_image import QwenImage
from harald.config import Config, LoraRef, ModelRef
from harald.errors import ModelError
from harald.evaluation.judge import WEIGHTS, Judge
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import judge as judging
from harald.proving_ground.pretraining.weights import QWEN3_VL, QWEN_IMAGE, load

JUDGE, VAE, BASE = judging.FOLDER, f"{QWEN_IMAGE}/vae", QWEN_IMAGE


def missing(weights: Path) -> set[str]:
    """Which of the judge, the VAE, the whole Qwen-Image and the Qwen3-VL are not there."""
    there = {
        JUDGE: (weights / JUDGE / WEIGHTS).exists(),
        VAE: any((weights / VAE).glob("*.safetensors")),
        BASE: (weights / BASE / "model_index.json").exists() and not hub.missing_files(weights / BASE),
        QWEN3_VL: not hub.missing_files(weights / QWEN3_VL),
    }
    return {name for name, found in there.items() if not found}


def megabytes(weights: Path) -> float:
    """Of all weights, in 1e6 bytes."""
    return sum(path.stat().st_size for path in weights.rglob("*.safetensors")) / 1e6


def load_judge(weights: Path, side: int) -> Judge:
    """In float32, on the device. Raises ModelError for a judge of another world or another size of picture."""
    judge: Judge = load(Judge, weights / JUDGE, determinism.device())
    if judge.attributes != ATTRIBUTES or judge.sizes["side"] != side:
        raise ModelError(
            f"the judge in {weights} reads {judge.sizes['side']} px and {list(judge.attributes)}, "
            f"the world has {side} px and {list(ATTRIBUTES)}, maybe with other classes",
            "train the judge again: pretrain_mini --stage judge",
        )
    return judge.eval()


def load_vae(weights: Path) -> Any:
    """In float32, on the device."""
    return load(AutoencoderKLQwenImage, weights / VAE, determinism.device()).requires_grad_(False).eval()


def load_base(weights: Path, config: Config) -> QwenImage:
    """As the jobs load it: in config.dtype, on the device."""
    with tempfile.TemporaryDirectory() as cache:
        ref = ModelRef(f"harald/{QWEN_IMAGE}")
        hub.install(Path(cache), ref.repo, weights / BASE)
        dtype: torch.dtype = determinism.dtype(config.dtype)
        return QwenImage.load(Path(cache), ref, LoraRef(), determinism.device(), dtype)

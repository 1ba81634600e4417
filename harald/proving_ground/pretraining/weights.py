"""Between two segments: float32 in training, bfloat16 in the folder, in the layout that from_pretrained reads."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from torch import nn

from harald import hub
from harald.config import ModelRef, Pretrain
from harald.determinism import key
from harald.proving_ground import mini_models
from harald.proving_ground.mini_models import TINY, TRAINED, Sizes

QWEN_IMAGE, QWEN3_VL = "mini-qwen-image", "mini-qwen3-vl"
SHARD = "14MB"


def sizes(pretrain: Pretrain) -> Sizes:
    return {"tiny": TINY, "trained": TRAINED}[pretrain.sizes]


def write_untrained(folder: Path, stage: str, seed: int, pretrain: Pretrain) -> None:
    """The parts of the model that a stage trains, with random weights, in `folder`, where they are missing there.

    The judge has no recipe: it makes its own.
    """
    name = {"vae": QWEN_IMAGE, "base": QWEN_IMAGE, "vision": QWEN3_VL}.get(stage)
    if name is None:
        return
    recipe = {QWEN_IMAGE: mini_models.qwen_image, QWEN3_VL: mini_models.qwen3_vl}[name]
    with tempfile.TemporaryDirectory() as scratch, torch.random.fork_rng(devices=[]):
        new = Path(scratch) / name
        torch.manual_seed(key(seed, "pretrain", name))
        recipe(new, sizes(pretrain))
        if name == QWEN_IMAGE:  # its parts are trained in different stages: small files from the beginning
            pipeline = load_pipeline(new.parent, torch.device("cpu"))
            for part in ("vae", "text_encoder", "transformer"):
                save(getattr(pipeline, part), new / part)
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part in new.iterdir():
            if not (folder / name / part.name).exists():
                shutil.move(part, folder / name / part.name)


def load(factory: Any, folder: Path, device: torch.device) -> Any:
    """A model or a pipeline of a folder in float32, by way of a cache of its own: hub.py is the only door."""
    with tempfile.TemporaryDirectory() as cache:
        ref = ModelRef(f"harald/{folder.name}")
        hub.install(Path(cache), ref.repo, folder)
        return hub.load(factory, Path(cache), ref, dtype=torch.float32).to(device)


def load_pipeline(folder: Path, device: torch.device) -> Any:
    """folder/mini-qwen-image in float32; no parameter requires a gradient."""
    pipeline = load(QwenImagePipeline, folder / QWEN_IMAGE, device)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.transformer):
        part.requires_grad_(False).eval()
    for part in (pipeline.vae, pipeline.transformer):  # diffusers would write the temporary path into config.json
        part.register_to_config(_name_or_path=f"harald/{QWEN_IMAGE}")
    return pipeline


def rounded(modules: Sequence[nn.Module]) -> None:
    """Round to what bfloat16 can hold, in place: what is measured is then what is written."""
    with torch.no_grad():
        for parameter in (p for module in modules for p in module.parameters()):
            parameter.copy_(parameter.bfloat16())


def save(model: Any, folder: Path) -> None:
    """A model in bfloat16 in place of what the folder holds, in files of less than SHARD. The model is converted."""
    shutil.rmtree(folder)
    model.cpu().bfloat16().save_pretrained(folder, max_shard_size=SHARD)

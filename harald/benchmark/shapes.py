"""The published models with random weights, made on the device: for measuring, not for pictures.

The tokenizer is the small models' own: how many tokens a text has changes no speed, and the published one is not in
this package.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from torch import nn
from transformers import Qwen2VLImageProcessorPil

from harald.base.prompt_template import TEMPLATE_HEAD
from harald.base.qwen_image import QwenImage
from harald.config import VECTORS, Config, ModelRef
from harald.determinism import key
from harald.encoder.chat import ChatBuilder
from harald.encoder.model import PersonEncoder
from harald.errors import ConfigError, did_you_mean
from harald.proving_ground.mini_models import vision_ids
from harald.proving_ground.mini_tokenizer import build
from harald.published.facts import PUBLISHED, Part, Published

Model = TypeVar("Model", bound=nn.Module)


def random_base(ref: ModelRef, device: torch.device, dtype: torch.dtype, seed: int = 0) -> QwenImage:
    """A Qwen-Image whose sizes are published. Raises ConfigError."""
    published, tokenizer = _published(ref), build()
    made = {
        part.folder: random_model(published, part, device, dtype, seed) for part in published.parts if part.parameters
    }
    config = published.config(next(part for part in published.parts if part.folder == "scheduler"))
    vars(made["text_encoder"].config).update(vision_ids(tokenizer))
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    pipeline: Any = diffusers.QwenImagePipeline(scheduler, tokenizer=tokenizer, **made)
    pipeline.prompt_template_encode_start_idx = len(tokenizer(TEMPLATE_HEAD, add_special_tokens=False).input_ids)
    return QwenImage(pipeline, ref.repo)


def random_encoder(config: Config, base: QwenImage) -> PersonEncoder:
    """An untrained encoder on a Qwen3-VL whose sizes are published. Raises ConfigError."""
    published, tokenizer = _published(config.models.encoder), build()
    model, processor = published.parts
    vlm = random_model(published, model, base.device, base.dtype, config.seed).model.eval()
    free = list(range(len(tokenizer), len(tokenizer) + config.encoder.tokens))
    chats = ChatBuilder(
        tokenizer, Qwen2VLImageProcessorPil(**published.config(processor)), free, config.encoder.max_pixels
    )
    scale = torch.ones(base.width * VECTORS[config.injection.point])
    return PersonEncoder(
        vlm, chats, config.encoder, config.models.encoder, scale, config.injection.point, base.repo, config.seed
    )


def random_model(published: Published, part: Part, device: torch.device, dtype: torch.dtype, seed: int) -> Any:
    """Weights as the class draws them at first, on the device and in the type. The same ones in every process."""
    raw = published.config(part)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device, default_dtype(dtype):
        torch.manual_seed(key(seed, "random weights", part.folder))
        if hasattr(diffusers, part.kind):
            return getattr(diffusers, part.kind).from_config(raw).eval()
        kind = getattr(transformers, part.kind)
        return kind._from_config(kind.config_class.from_dict(raw), dtype=dtype).eval()


def sharing(model: Model) -> Model:
    """A copy whose parameters and buffers are the very same tensors."""
    return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})


def with_parts(base: QwenImage, **parts: Any) -> QwenImage:
    """The same model with other parts of the pipeline."""
    pipeline: Any = diffusers.QwenImagePipeline(**base.pipeline.components | parts)
    pipeline.prompt_template_encode_start_idx = base.pipeline.prompt_template_encode_start_idx
    return QwenImage(pipeline, base.repo)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _published(ref: ModelRef) -> Published:
    if ref.repo not in PUBLISHED:
        raise ConfigError(f"the sizes of {ref.repo} are not recorded", did_you_mean(ref.repo, PUBLISHED))
    return PUBLISHED[ref.repo]

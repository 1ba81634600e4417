"""A picture: ours with and without a person, the stock pipeline, and the edit pipeline with the person's pictures."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import QwenImageEditPlusPipeline
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, Qwen2Tokenizer, Qwen2VLImageProcessorPil

from harald.base.compiled import compiled
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.data.images import within_pixels
from harald.encoder.model import PersonEncoder
from harald.injection.points import condition, plain
from harald.injection.prompt import ANY, parse

PROMPT = "photo of <person>, portrait, laughing, facing the camera, on a beach at dusk, warm light from the left"
STOCK, NOBODY, EXACT = "stock pipeline", "ours, nobody", "ours, nobody, compiled"
FLOAT8 = "ours, nobody, compiled, float8"


PERSON_ARM = "ours, person, compiled, pictures: "


def person_arm(references: int) -> str:
    return f"{PERSON_ARM}{references}"


def edit_arm(references: int) -> str:
    return f"edit pipeline, pictures: {references}"


class Pictures:
    """One picture each, prompt and references read anew every time."""

    def __init__(self, base: QwenImage, encoder: PersonEncoder, references: Sequence[Image.Image], config: Config):
        self.base, self.encoder, self.config = base, encoder, config
        self.references = [within_pixels(picture, config.encoder.max_pixels) for picture in references]
        self.prompt = parse(PROMPT)

    def arms(self, references: Sequence[int], edits: Sequence[int]) -> dict[str, Callable[[], Any]]:
        return {
            STOCK: self.stock,
            NOBODY: self.nobody,
            EXACT: lambda: self.compiled(self.nobody),
            **{person_arm(n): lambda n=n: self.compiled(lambda: self.person(n)) for n in references},
            **{edit_arm(n): lambda n=n: self.edited(n) for n in edits},
        }

    def float8_arms(self) -> dict[str, Callable[[], Any]]:
        """Once the base model's layers are in float8."""
        return {FLOAT8: lambda: self.compiled(self.nobody)}

    def stock(self) -> Any:
        g = self.config.generate
        return self.base.pipeline(
            prompt=self.prompt.with_word(self.config.injection.class_word), negative_prompt=g.negative_prompt,
            true_cfg_scale=g.guidance, height=g.size, width=g.size, num_inference_steps=g.steps,
            generator=torch.Generator("cpu").manual_seed(0),
        ).images  # fmt: skip

    @torch.no_grad()
    def nobody(self) -> Any:
        return self._drawn({})

    @torch.no_grad()
    def person(self, count: int) -> Any:
        return self._drawn({ANY: self.encoder([self.references[:count]])[0]})

    def compiled(self, draw: Callable[[], Any]) -> Any:
        with compiled(self.base.transformer, self.config.deterministic):
            return draw()

    def _drawn(self, persons: dict[str, Tensor]) -> Any:
        g, injection = self.config.generate, self.config.injection
        states = condition(self.base, self.prompt, persons, injection.point, injection.class_word)
        return self.base.draw(states, plain(self.base, g.negative_prompt), [0], g.size, g.steps, g.guidance)

    def edited(self, count: int) -> Any:
        """With the same transformer, text encoder and VAE: Qwen-Image-Edit has their shapes."""
        g = self.config.generate
        return self.edit_pipeline()(
            image=self.references[:count], prompt=self.prompt.with_word("the person"),
            negative_prompt=g.negative_prompt, true_cfg_scale=g.guidance, height=g.size, width=g.size,
            num_inference_steps=g.steps, generator=torch.Generator("cpu").manual_seed(0),
        ).images  # fmt: skip

    def edit_pipeline(self) -> Any:
        parts = self.base.pipeline.components
        vision = parts["text_encoder"].config.vision_config
        pictures = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=vision.spatial_merge_size)
        processor: Any = Processor(pictures, parts["tokenizer"])
        pipeline: Any = QwenImageEditPlusPipeline(**parts, processor=processor)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@dataclass(frozen=True)
class Processor:
    """What transformers' Qwen2_5_VLProcessor does with pictures and text; that one needs torchvision, for videos."""

    pictures: Qwen2VLImageProcessorPil
    tokenizer: Qwen2Tokenizer

    def __call__(self, text: list[str], images: Any, **options: Any) -> BatchFeature:
        seen = self.pictures(images=images, return_tensors="pt") if images is not None else {}
        counts = iter([grid.prod().item() // self.pictures.merge_size**2 for grid in seen.get("image_grid_thw", [])])
        pad = "<|image_pad|>"
        expanded = [re.sub(re.escape(pad), lambda _: pad * int(next(counts)), one) for one in text]
        return BatchFeature({**self.tokenizer(expanded, **options), **seen})

"""Qwen-Image: 20B MMDiT, Qwen2.5-VL text encoder, 3-D VAE. Everything is diffusers' own; frozen, in evaluation mode."""

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift
from PIL import Image
from torch import Tensor
from transformers import Qwen2Tokenizer

from harald import hub
from harald.base import BaseModel
from harald.base.prompt_template import TEMPLATE_HEAD
from harald.base.speed import EAGER, Drawing, few_steps, place
from harald.base.strength import strengthened
from harald.base.text_mask import no_lengths
from harald.base.vae import encode_images
from harald.config import LoraRef, ModelRef
from harald.errors import ModelError, PromptError

log = logging.getLogger(__name__)

MAX_STATES = 1024  # the pipeline cuts silently beyond this
TRAINED_STATES = 512  # what the published model was trained on
LORA = "style"
TEXTS = 64  # whose states are kept: the negative prompt comes with every picture


@dataclass(frozen=True)
class Tokenize:
    """See BaseModel.tokenize."""

    tokenizer: Qwen2Tokenizer

    def __call__(self, text: str) -> list[int]:
        return list(_ids(self.tokenizer, text))


@functools.lru_cache(maxsize=8192)  # prompts of one data set begin alike, and come back
def _ids(tokenizer: Qwen2Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


class QwenImage(BaseModel):
    """See harald.base.BaseModel. `pipeline`: the stock one, whose pictures ours must equal where no person is used."""

    def __init__(self, pipeline: Any, repo: str, lora: LoraRef | None = None, drawing: Drawing = EAGER):
        self.pipeline, self.repo, self.lora, self.drawing = pipeline, repo, lora, drawing
        pipeline.set_progress_bar_config(disable=True)
        for part in (pipeline.transformer, pipeline.text_encoder, pipeline.vae):
            part.requires_grad_(False).eval()
        self.transformer, self.vae, self.tokenize = pipeline.transformer, pipeline.vae, Tokenize(pipeline.tokenizer)
        self.text_model = pipeline.text_encoder.model
        self.dtype = self.transformer.dtype
        self.width = self.transformer.config.joint_attention_dim
        rows = self.text_model.get_input_embeddings().num_embeddings
        self.reserved_ids = list(range(len(pipeline.tokenizer), rows))
        self.texts: dict[tuple[int, ...], Tensor] = {}
        self.head = len(self.tokenize(TEMPLATE_HEAD))
        if self.head != pipeline.prompt_template_encode_start_idx:
            raise ModelError(
                f"the template's head is {self.head} tokens with the tokenizer of {repo}, but the pipeline drops "
                f"{pipeline.prompt_template_encode_start_idx}",
                "use the tokenizer that belongs to the base model",
            )

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @classmethod
    def load(
        cls, cache: Path, ref: ModelRef, lora: LoraRef, device: torch.device, dtype: torch.dtype,
        drawing: Drawing = EAGER,
    ) -> "QwenImage":  # fmt: skip
        """From the HF cache, through hub.py. drawing: how pictures are drawn. Raises ModelError.

        The order counts: a LoRA wraps linear layers, and what it wraps may then be in float8.
        """
        pipeline = hub.load(QwenImagePipeline, cache, ref, dtype=dtype)
        pipeline.transformer.requires_grad_(False)
        if drawing.few:
            place(pipeline, EAGER, device)  # where its sums are quick
            few_steps(pipeline, cache, drawing.few)
        if lora.source:
            hub.load_lora(pipeline, cache, lora, LORA)
            pipeline.disable_lora()
        place(pipeline, drawing, device)
        return cls(pipeline, ref.repo, lora if lora.source else None, drawing)

    def use_domain(self, domain: str) -> None:
        if self.lora is None:
            return
        if domain == self.lora.domain:
            self.pipeline.enable_lora()
            self.pipeline.set_adapters([LORA], [self.lora.scale])
        else:
            self.pipeline.disable_lora()

    # ------------------------------------------------------------ text
    def word_embeddings(self, ids: Tensor) -> Tensor:
        return self.text_model.get_input_embeddings()(ids.to(self.device))

    def text_states(self, embeddings: Tensor) -> Tensor:
        length = embeddings.shape[1] - self.head
        if length > MAX_STATES:
            raise PromptError(
                f"the prompt has {length} tokens, the base model reads at most {MAX_STATES}", "shorten the prompt"
            )
        # Causal, and whole or padded on the right: no mask. Saying so keeps the library from making one in a recording.
        output = self.text_model(
            inputs_embeds=embeddings.to(self.dtype), attention_mask={"full_attention": None}, use_cache=False
        )
        return output.last_hidden_state[:, self.head :]  # post-norm, as the pipeline's hidden_states[-1]

    @torch.no_grad()
    def read(self, ids: Sequence[int]) -> Tensor:
        key = tuple(ids)
        if key not in self.texts:
            if len(self.texts) == TEXTS:
                del self.texts[next(iter(self.texts))]  # the first one
            self.texts[key] = self.text_states(self.word_embeddings(torch.tensor([key])))[0]
        return self.texts[key]

    # ------------------------------------------------------------ pictures
    def encode_images(self, pixels: Tensor) -> Tensor:
        return encode_images(self.vae, pixels)

    def latent_shape(self, side: int) -> tuple[tuple[int, int], float]:
        """(s, c) of a side x side picture's packed latents, and the scheduler's time shift mu for that length."""
        tokens = (side // self.pipeline.vae_scale_factor // 2) ** 2
        scheduler = self.pipeline.scheduler.config
        mu = calculate_shift(
            tokens, scheduler.base_image_seq_len, scheduler.max_image_seq_len, scheduler.base_shift, scheduler.max_shift
        )
        return (tokens, self.transformer.config.in_channels), mu

    def velocity(self, latents: Tensor, t: Tensor, states: Tensor, side: int, mask: Tensor | None = None) -> Tensor:
        grid = side // self.pipeline.vae_scale_factor // 2
        with no_lengths():
            return self.transformer(
                hidden_states=latents.to(self.dtype),
                timestep=t.to(self.device, self.dtype),
                encoder_hidden_states=states.to(self.dtype),
                encoder_hidden_states_mask=None if mask is None else mask.to(self.device),
                img_shapes=[[(1, grid, grid)]] * len(latents),
                return_dict=False,
            )[0]

    @torch.no_grad()
    def draw(
        self,
        states: Tensor,
        negative: Tensor,
        seeds: Sequence[int],
        size: int,
        steps: int,
        guidance: float,
        text: Tensor | None = None,
        strength: float = 1.0,
        on_step: Callable[[], None] | None = None,
    ) -> list[Image.Image]:
        check_length(len(states))
        steps, guidance = self.drawing.schedule(steps, guidance)
        strong = contextlib.nullcontext()
        if text is not None and strength != 1:
            strong = strengthened(self.transformer, states.to(self.dtype), text.to(self.dtype), strength)
        pictures = []
        with self.drawing.around(self.transformer), strong:
            for seed in seeds:  # one at a time: a picture does not depend on its neighbours
                pictures += self.pipeline(
                    **_prompt("", states, self.dtype),
                    **(_prompt("negative_", negative, self.dtype) if guidance > 1 else {}),
                    true_cfg_scale=guidance,
                    height=size,
                    width=size,
                    num_inference_steps=steps,
                    generator=torch.Generator("cpu").manual_seed(seed),
                    max_sequence_length=MAX_STATES,
                    callback_on_step_end=_callback(on_step) if on_step else None,
                ).images
        return pictures


def check_length(states: int) -> None:
    """Raises PromptError where the pipeline would cut silently; warns beyond what the model was trained on."""
    if states > MAX_STATES:
        raise PromptError(
            f"prompt and person tokens together are {states} tokens, the base model reads at most {MAX_STATES}",
            "shorten the prompt or use fewer persons",
        )
    if states > TRAINED_STATES:
        log.warning(
            "prompt and person tokens together are %d tokens; Qwen-Image was trained on %d", states, TRAINED_STATES
        )


def _callback(on_step: Callable[[], None]) -> Callable[..., dict[str, Tensor]]:
    """In the form that the pipeline calls; what it returns replaces the pipeline's tensors."""

    def after_step(pipeline: Any, step: int, timestep: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        on_step()
        return tensors

    return after_step


def _prompt(prefix: str, states: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    embeds = states[None].to(dtype)
    return {
        f"{prefix}prompt_embeds": embeds,
        f"{prefix}prompt_embeds_mask": torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device),
    }

"""Small models of the very classes that the published checkpoints use, in the real layout.

TINY ones are written into the cache with random weights (fixed seed): their pictures are noise, the code that makes
them is the real code. TRAINED ones are trained from nothing by the job pretrain_mini and shipped with this package.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from harald import hub
from harald.config import ModelRef
from harald.errors import ModelError
from harald.proving_ground.mini_tokenizer import build

RESERVED = 128  # vocabulary rows beyond the tokenizer's, as the published checkpoints have them


@dataclass(frozen=True)
class Sizes:
    """Arguments of the models' own configurations, where the sizes differ."""

    vae: dict[str, Any]
    transformer: dict[str, Any]
    text: dict[str, Any]  # text encoder; its hidden_size is the width of the prompt states
    vlm_text: dict[str, Any]  # language model of the Qwen3-VL
    vlm_vision: dict[str, Any]
    tied: bool  # the output rows of the text models, which nobody uses, share the memory of the input rows


TINY = Sizes(
    vae={"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1},
    transformer={"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4, "axes_dims_rope": (4, 6, 6)},
    text={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [2, 3, 3]},
    },
    vlm_text={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5_000_000.0,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
    },
    vlm_vision={
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    },
    tied=False,
)
# MMDiT 14.6 M parameters, text encoder 2 M, VAE 6 M (single frames use a third of it), Qwen3-VL 4 M.
TRAINED = Sizes(
    vae={"base_dim": 32, "dim_mult": [1, 2, 3, 3], "num_res_blocks": 1},
    transformer={"num_layers": 6, "attention_head_dim": 32, "num_attention_heads": 8, "axes_dims_rope": (8, 12, 12)},
    text={
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
    },
    vlm_text={
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [8, 4, 4],
            "mrope_interleaved": True,
        },
    },
    vlm_vision={
        "depth": 6,
        "hidden_size": 160,
        "intermediate_size": 512,
        "num_heads": 5,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": [3],
    },
    tied=True,
)


SHIPPED = Path(__file__).parent / "weights"  # of the mini preset, written by the job pretrain_mini


def write(cache: Path, ref: ModelRef) -> str:
    """Install the repository that the reference's recipe names. Returns its commit.

    Raises ModelError if the package holds no finished weights of it.
    """
    if ref.recipe.startswith("mini_"):
        folder = _shipped(ref)
        if not any((folder / index).exists() for index in ("model_index.json", "config.json", "encoder.json")):
            raise ModelError(f"this package ships no weights of {ref.repo}", "use --preset tiny, or run pretrain_mini")
        return hub.install(cache, ref.repo, folder)
    recipe: Callable[[Path, Sizes], None] = {"tiny_qwen_image": qwen_image, "tiny_qwen3_vl": qwen3_vl}[ref.recipe]
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(20250804)
        recipe(Path(folder), TINY)
        return hub.install(cache, ref.repo, Path(folder))


def is_current(cache: Path, ref: ModelRef) -> bool:
    """Whether the cache holds what the recipe would write; the shipped weights change with the package."""
    if not hub.is_cached(cache, ref):
        return False
    folder = _shipped(ref)
    return not folder.is_dir() or hub.snapshot(cache, ref).name == hub.commit_of(folder)


def _shipped(ref: ModelRef) -> Path:
    return SHIPPED / ref.recipe.replace("_", "-")


def qwen_image(folder: Path, sizes: Sizes) -> None:
    """Write a Qwen-Image with weights from torch's current seed."""
    tokenizer = build()
    vae: Any = AutoencoderKLQwenImage(z_dim=16, **sizes.vae)
    text_encoder = Qwen2_5_VLForConditionalGeneration(_text_config(tokenizer, sizes))
    transformer: Any = QwenImageTransformer2DModel(joint_attention_dim=sizes.text["hidden_size"], **sizes.transformer)
    pipeline: Any = QwenImagePipeline(scheduler(), vae, text_encoder, tokenizer, transformer)
    pipeline.save_pretrained(folder)


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The published scheduler of Qwen-Image (scheduler/scheduler_config.json of Qwen/Qwen-Image)."""
    return FlowMatchEulerDiscreteScheduler(
        base_image_seq_len=256,
        base_shift=0.5,
        max_image_seq_len=8192,
        max_shift=0.9,
        num_train_timesteps=1000,
        shift=1.0,
        shift_terminal=0.02,
        time_shift_type="exponential",
        use_dynamic_shifting=True,
    )


def _text_config(tokenizer: Qwen2Tokenizer, sizes: Sizes) -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        text_config={**sizes.text, **_vocabulary(tokenizer)},
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": sizes.text["hidden_size"],
            "fullatt_block_indexes": [0],
        },
        tie_word_embeddings=sizes.tied,
        **vision_ids(tokenizer),
    )


def qwen3_vl(folder: Path, sizes: Sizes) -> None:
    """Write a Qwen3-VL with weights from torch's current seed."""
    tokenizer = build()
    config = Qwen3VLConfig(
        text_config={**sizes.vlm_text, **_vocabulary(tokenizer)},
        vision_config={
            "patch_size": 8,
            "spatial_merge_size": 2,
            "out_hidden_size": sizes.vlm_text["hidden_size"],
            **sizes.vlm_vision,
        },
        tie_word_embeddings=sizes.tied,
        **vision_ids(tokenizer),
    )
    Qwen3VLForConditionalGeneration(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        size={"shortest_edge": 16 * 16, "longest_edge": 256 * 256},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    ).save_pretrained(folder)


def vision_ids(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {field: tokenizer.convert_tokens_to_ids(token) for field, token in names.items()}


def _vocabulary(tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer) + RESERVED,
        "bos_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "pad_token_id": tokenizer.pad_token_id,
    }

"""Small checkpoints in the published form: the published configurations scaled down, the published names, shards with
an index, the tokenizer's old files, the cache's real layout."""

import copy
import json
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from transformers import Qwen2Tokenizer

from harald import hub
from harald.config import ModelRef
from harald.proving_ground.mini_tokenizer import build
from harald.published.facts import PUBLISHED, Part, Published

BASE, ENCODER = ModelRef("Qwen/Qwen-Image"), ModelRef("Qwen/Qwen3-VL-8B-Instruct")
TOKENIZER = build()
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {
    field: TOKENIZER.convert_tokens_to_ids(token)
    for field, token in (
        ("image_token_id", "<|image_pad|>"),
        ("video_token_id", "<|video_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    )
}


def scaled(published: Published, part: Part) -> dict[str, Any]:
    """The published file with small numbers in the same fields."""
    raw = copy.deepcopy(published.config(part))
    vocabulary = {"vocab_size": len(TOKENIZER) + 128, "bos_token_id": 0, "eos_token_id": 1}
    if part.folder == "transformer":
        raw |= {"num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 4, "joint_attention_dim": 64}
        raw["axes_dims_rope"] = [4, 6, 6]
    elif part.folder == "vae":
        raw |= {"base_dim": 8, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1}
    elif part.folder == "text_encoder":
        small = {**TEXT, **vocabulary, "num_hidden_layers": 2, "max_position_embeddings": 2048}
        for place in (raw, raw["text_config"]):
            place |= small
            place["rope_scaling"]["mrope_section"] = [2, 3, 3]
        raw |= IDS
        raw["text_config"]["layer_types"] = ["full_attention"] * 2
        raw["vision_config"] |= {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2}
        raw["vision_config"] |= {"out_hidden_size": 64, "fullatt_block_indexes": [0]}
    elif part.kind == "Qwen3VLForConditionalGeneration":
        raw["text_config"] |= {**TEXT, **vocabulary, "num_hidden_layers": 4, "head_dim": 16}
        raw["text_config"]["rope_scaling"]["mrope_section"] = [4, 2, 2]
        raw["vision_config"] |= {"depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4}
        raw["vision_config"] |= {"out_hidden_size": 64, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
        raw |= IDS
    return raw


def write(published: Published, folder: Path) -> Path:
    """Random weights from a fixed seed. The configurations stay as the published files have them."""
    for part in published.parts:
        place, raw = folder / part.folder, scaled(published, part)
        if part.parameters:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(len(part.folder))
                model = make(part.kind, raw)
            model.save_pretrained(place, max_shard_size="150KB")
        place.mkdir(parents=True, exist_ok=True)
        (place / part.config).write_text(json.dumps(raw, indent=2))
    write_tokenizer(TOKENIZER, folder / published.tokenizer)
    return folder


def make(kind: str, raw: dict[str, Any]) -> Any:
    if hasattr(diffusers, kind):
        return getattr(diffusers, kind).from_config(raw)
    model_class = getattr(transformers, kind)
    return model_class._from_config(model_class.config_class.from_dict(copy.deepcopy(raw)))


def write_tokenizer(tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """vocab.json, merges.txt and added_tokens_decoder, as the published repositories have them; no tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {
        str(index): {"content": token.content, "special": True, "normalized": False}
        for index, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    described = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "add_prefix_space": False}
    described |= {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def install(cache: Path, ref: ModelRef, folder: Path) -> Path:
    """Into the cache in the real layout. Returns the snapshot."""
    hub.install(cache, ref.repo, folder)
    return hub.snapshot(cache, ref)


def published(ref: ModelRef) -> Published:
    return PUBLISHED[ref.repo]

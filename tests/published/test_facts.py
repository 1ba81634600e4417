"""The recorded configurations, built with the real classes on the meta device, against the published counts."""

import re

import diffusers
import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

from harald.config import full
from harald.encoder.model import LANGUAGE, VISION, mix_layers
from harald.proving_ground.mini_models import scheduler
from harald.published.checkpoint import pattern
from harald.published.facts import PUBLISHED, QWEN_IMAGE
from tests.published.models import MODELS, empty, layout, stored

every_model = pytest.mark.parametrize(
    ("published", "part"), MODELS, ids=[f"{p.repo.split('/')[1]} {part.folder}".strip() for p, part in MODELS]
)
TOP = {part.folder: part for part in QWEN_IMAGE.parts}


@every_model
def test_number_of_parameters_is_the_published_one(published, part):
    assert sum(parameter.numel() for parameter in empty(published, part).parameters()) == part.parameters


@every_model
def test_files_hold_as_many_tensors_and_bytes_as_published(published, part):
    tensors = stored(empty(published, part))
    assert part.tensors in (None, len(tensors))
    assert part.size in (None, 2 * sum(tensor.numel() for tensor in tensors.values()))  # bfloat16


@every_model
def test_names_and_shapes_are_the_recorded_ones(published, part):
    """A new version of a library that renames or reshapes a tensor shows up here."""
    assert layout(published, part) == published.layout(part)


def test_presets_name_only_recorded_models():
    assert {full().models.base.repo, full().models.encoder.repo} <= set(PUBLISHED)


def test_every_part_has_a_source():
    for published in PUBLISHED.values():
        for part in published.parts:
            assert all(re.fullmatch(r"[\w.-]+/[\w.-]+:[\w./-]+", source) for source in part.sources), part
            assert part.sources, part


def test_text_models_read_their_rope_from_the_old_form_of_the_file():
    """Without it the classes fall back on thetas of their own (500,000 for Qwen3-VL) and draw or see something else."""
    rope = empty(QWEN_IMAGE, TOP["text_encoder"]).config.text_config.rope_parameters
    assert (rope["rope_theta"], rope["mrope_section"]) == (1_000_000.0, [16, 24, 24])
    for published, part in MODELS:
        if "Qwen3-VL" in published.repo:
            rope = empty(published, part).config.text_config.rope_parameters
            assert (rope["rope_theta"], rope["mrope_section"]) == (5_000_000, [24, 20, 20])
            assert rope["mrope_interleaved"] is True


def test_latent_statistics_are_the_defaults_of_the_class_too():
    with torch.device("meta"):
        ours, defaults = QWEN_IMAGE.config(TOP["vae"]), diffusers.AutoencoderKLQwenImage().config
    for name in ("latents_mean", "latents_std", "z_dim", "base_dim", "dim_mult", "temperal_downsample"):
        assert (
            list(ours[name]) == list(defaults[name]) if isinstance(ours[name], list) else ours[name] == defaults[name]
        )
    assert len(ours["latents_mean"]) == len(ours["latents_std"]) == ours["z_dim"]


def test_parts_of_the_base_model_fit_each_other_at_512_pixels():
    """A forward pass on the meta device: shapes only. Packed latents of the VAE and states as wide as the text
    encoder's, prompt and 64 person tokens together, go through all 60 blocks."""
    vae, transformer, text = (empty(QWEN_IMAGE, TOP[name]) for name in ("vae", "transformer", "text_encoder"))
    latents = vae.encode(torch.empty(1, 3, 1, 512, 512, device="meta")).latent_dist.mode()
    assert latents.shape == (1, 16, 1, 64, 64)
    packed = torch.empty(1, 32 * 32, 4 * latents.shape[1], device="meta")
    states = torch.empty(1, 26 + 64, text.config.text_config.hidden_size, device="meta")
    time, shapes = torch.empty(1, device="meta"), [[(1, 32, 32)]]
    assert transformer(packed, states, None, time, shapes, return_dict=False)[0].shape == packed.shape


def test_small_models_use_the_published_schedule():
    ours = dict(scheduler().config)
    assert {name: ours[name] for name in QWEN_IMAGE.config(TOP["scheduler"]) if not name.startswith("_")} == {
        name: value for name, value in QWEN_IMAGE.config(TOP["scheduler"]).items() if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("size", "language", "vision", "layers"),
    [
        ("2B", 28 * 7, 24 * 4 + 2 + 3 * 2, [5, 9, 14, 19, 23, 28]),
        ("4B", 36 * 7, 24 * 4 + 2 + 3 * 2, [6, 12, 18, 24, 30, 36]),
        ("8B", 36 * 7, 27 * 4 + 2 + 3 * 2, [6, 12, 18, 24, 30, 36]),
    ],
)
def test_lora_of_the_encoder_hits_exactly_the_linear_layers(size, language, vision, layers):
    published = PUBLISHED[f"Qwen/Qwen3-VL-{size}-Instruct"]
    (part,) = (part for part in published.parts if part.parameters)
    vlm = empty(published, part).model
    linear = {name for name, module in vlm.named_modules() if isinstance(module, torch.nn.Linear)}
    lora = LoraConfig(target_modules=f"{LANGUAGE}|{VISION}")
    hit = {name for name, _ in vlm.named_modules() if check_target_module_exists(lora, name)}
    assert hit == linear
    assert sum("language_model" in name for name in hit) == language
    frozen_vision = {name for name in hit if check_target_module_exists(LoraConfig(target_modules=LANGUAGE), name)}
    assert frozen_vision == {name for name in hit if "language_model" in name}
    assert sum("visual" in name for name in hit) == vision
    assert mix_layers(vlm.config.text_config.num_hidden_layers, 6) == layers


def test_pattern_replaces_every_index_and_nothing_else():
    assert pattern("visual.blocks.11.mlp.linear_fc1.bias") == "visual.blocks.{i}.mlp.linear_fc1.bias"
    assert pattern("txt_norm.weight") == "txt_norm.weight"

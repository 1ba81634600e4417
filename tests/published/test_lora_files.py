"""LoRA files for Qwen-Image in the formats that go round, through hub.load_lora and against the full model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import QwenImagePipeline
from safetensors.torch import save_file
from torch import Tensor, nn

from harald import config, hub
from harald.config import LoraRef
from harald.errors import ModelError
from harald.published.facts import QWEN_IMAGE
from harald.published.lora import misfits
from tests.models import FLOAT, cache
from tests.published.models import empty

TARGETS = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")),
    *("attn.to_add_out", "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    *("img_mod.1", "txt_mod.1"),
)
Name = Callable[[str], str]


def tensors(transformer: nn.Module, blocks: range, down: str, up: str, name: Name, alpha: bool) -> dict[str, Tensor]:
    """Rank 2, random, for every linear layer of the blocks."""
    found = {}
    for block in blocks:
        for target in TARGETS:
            module = f"transformer_blocks.{block}.{target}"
            width, height = transformer.get_submodule(module).weight.shape
            found[f"{name(module)}.{down}.weight"] = torch.randn(2, height)
            found[f"{name(module)}.{up}.weight"] = torch.randn(width, 2)
            if alpha:
                found[f"{name(module)}.alpha"] = torch.tensor(1.0)
    return found


FORMATS = {
    "diffusers": ("lora_A", "lora_B", lambda module: f"transformer.{module}", False),
    "kohya": ("lora_down", "lora_up", lambda module: f"lora_unet_{module.replace('.', '_')}", True),
    "comfy": ("lora_A", "lora_B", lambda module: f"diffusion_model.{module}", True),
    "diffsynth": ("lora_A.default", "lora_B.default", lambda module: module, False),
}


def pipeline() -> QwenImagePipeline:
    return hub.load(QwenImagePipeline, cache(), config.tiny().models.base, dtype=FLOAT)


def saved(found: dict[str, Tensor], name: str) -> Path:
    save_file(found, cache() / name)
    return cache() / name


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_reaches_every_module_of_the_small_model(kind):
    pipe = pipeline()
    file = saved(tensors(pipe.transformer, range(2), *FORMATS[kind]), f"{kind}.safetensors")
    hub.load_lora(pipe, cache(), LoraRef(file.name), "style")
    hit = {name for name, _ in pipe.transformer.named_modules() if name.endswith("lora_B.style")}
    assert len(hit) == 2 * len(TARGETS)
    assert all(pipe.transformer.get_submodule(name).weight.abs().sum() > 0 for name in hit)


def test_kohyas_alpha_scales_the_change():
    """alpha 1 at rank 2 halves it; the factor lies in the tensors themselves."""
    pipe = pipeline()
    found = tensors(pipe.transformer, range(1), *FORMATS["kohya"])
    hub.load_lora(pipe, cache(), LoraRef(saved(found, "alpha.safetensors").name), "style")
    layer = pipe.transformer.transformer_blocks[0].attn.to_q
    change = layer.lora_B["style"].weight @ layer.lora_A["style"].weight * layer.scaling["style"]
    flat = "lora_unet_transformer_blocks_0_attn_to_q"
    expected = found[f"{flat}.lora_up.weight"] @ found[f"{flat}.lora_down.weight"] / 2
    torch.testing.assert_close(change, expected)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_names_modules_of_the_full_model(kind):
    """All 60 blocks of the published transformer, whose modules exist on the meta device only."""
    (part,) = (part for part in QWEN_IMAGE.parts if part.folder == "transformer")
    full = empty(QWEN_IMAGE, part)
    found = tensors(full, range(59, 60), *FORMATS[kind])
    assert misfits(saved(found, f"full-{kind}.safetensors"), full) == []
    assert len(full.transformer_blocks) == 60


def change(old: str, new: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda found: {name.replace(old, new): tensor for name, tensor in found.items()}


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (change("transformer.transformer", "base_model.model.transf"), "recognises none of its names, such as base"),
        (change("transformer.transformer", "transformer"), "recognises none of its names, such as transf"),
        (change("transformer_blocks.1", "transformer_blocks.59"), "14 of its 28 modules do not exist, first .*59"),
        (change("transformer_blocks", "single_transformer_blocks"), "28 of its 28 modules do not exist, first single"),
        (lambda found: {n: torch.randn(2, t.shape[1] + 1) if "to_q.lora_A" in n else t for n, t in found.items()},
         "2 of its tensors have other sizes than the model, first transformer_blocks.0.attn.to_q.lora_A"),
        (change("lora_A", "lokr_w1.default"), "cannot read its names"),
        (lambda found: {}, "recognises none of its names, such as nothing"),
    ],
    ids=["peft's own names", "no prefix", "a larger model", "FLUX", "another width", "LoKr", "empty"],
)  # fmt: skip
def test_file_that_does_not_fit_is_refused_with_its_first_name(break_it, says):
    pipe = pipeline()
    file = saved(break_it(tensors(pipe.transformer, range(2), *FORMATS["diffusers"])), "odd.safetensors")
    with pytest.raises(ModelError, match=f"(?s)does not fit QwenImageTransformer2DModel: .*{says}.*models.lora.source"):
        hub.load_lora(pipe, cache(), LoraRef(file.name), "style")
    assert not pipe.get_list_adapters()


def test_damaged_file_is_refused():
    (cache() / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(ModelError, match="damaged"):
        hub.load_lora(None, cache(), LoraRef("cut.safetensors"), "style")


def test_repository_with_two_files_needs_a_name(tmp_path):
    for name in ("a", "b"):
        save_file({"lora": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    hub.install(cache(), "someone/two", tmp_path)
    with pytest.raises(ModelError, match=r"(?s)weight_name is '', the repository someone/two holds a.*, b.*name one"):
        hub.lora_file(cache(), LoraRef("someone/two"))
    assert hub.lora_file(cache(), LoraRef("someone/two", "b.safetensors")).name == "b.safetensors"

"""The user's style LoRA: loaded through hub.py, on for its own domain only."""

import pytest
import torch
from diffusers import QwenImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from harald import config, hub
from harald.base.qwen_image import QwenImage
from harald.config import LoraRef
from harald.errors import ModelError
from harald.injection.points import plain
from tests.models import CPU, FLOAT, base, cache

TEXT = "a woman in a park"


@pytest.fixture(scope="module")
def lora_file(tmp_path_factory):
    """A LoRA in diffusers' own format, strong enough to be seen."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline = hub.load(QwenImagePipeline, cache(), config.tiny().models.base, dtype=FLOAT)
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(pipeline.transformer).items()}
    QwenImagePipeline.save_lora_weights(folder, transformer_lora_layers=layers)
    return folder / "pytorch_lora_weights.safetensors"


def picture(model: QwenImage, domain: str) -> bytes:
    model.use_domain(domain)
    with torch.no_grad():
        states, negative = plain(model, TEXT), plain(model, " ")
    return model.draw(states, negative, [1], 32, 2, 1.0)[0].tobytes()


@pytest.mark.parametrize("kind", ["repository", "file in the cache"])
def test_lora_draws_its_own_domain_and_leaves_the_others_bit_equal(lora_file, kind):
    if kind == "repository":
        hub.install(cache(), "someone/comic-style", lora_file.parent)
        ref = LoraRef("someone/comic-style", weight_name=lora_file.name)
    else:
        (cache() / "comic.safetensors").write_bytes(lora_file.read_bytes())
        ref = LoraRef("comic.safetensors")
    styled = QwenImage.load(cache(), config.tiny().models.base, ref, CPU, FLOAT)
    assert picture(styled, "photo") == picture(base(), "photo")
    assert picture(styled, "comic") != picture(base(), "comic")
    assert picture(styled, "photo") == picture(base(), "photo")  # and off again


def test_scale_of_the_lora_counts(lora_file):
    (cache() / "comic.safetensors").write_bytes(lora_file.read_bytes())
    refs = [LoraRef("comic.safetensors", scale=scale) for scale in (0.5, 1.0)]
    models = [QwenImage.load(cache(), config.tiny().models.base, ref, CPU, FLOAT) for ref in refs]
    assert picture(models[0], "comic") != picture(models[1], "comic")


def test_unknown_lora_is_named(tmp_path):
    with pytest.raises(ModelError, match="no/such"):
        QwenImage.load(cache(), config.tiny().models.base, LoraRef("no/such"), CPU, FLOAT)

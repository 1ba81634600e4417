"""The speeds of drawing, compiled by AOTAutograd alone: what Inductor makes of it is for a GPU."""

import contextlib

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

from harald import config, hub
from harald.base import compiled, recording, speed
from harald.base.float8 import Float8Linear
from harald.base.qwen_image import QwenImage
from harald.base.recording import Shared
from harald.base.speed import Drawing
from harald.config import FewSteps, LoraRef
from harald.errors import ModelError
from harald.injection.points import plain
from tests.models import CPU, FLOAT, base, cache

TEXT, OTHER = "a woman in a park", "a man, asleep, on a train at night"
NO_LORA = LoraRef()


@pytest.fixture(autouse=True)
def without_inductor(monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.fixture(scope="module")
def lora(tmp_path_factory) -> str:
    """A LoRA in diffusers' own format, strong enough to be seen; the name of its file in the cache."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline = hub.load(QwenImagePipeline, cache(), config.tiny().models.base, dtype=FLOAT)
    pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(pipeline.transformer).items()}
    QwenImagePipeline.save_lora_weights(folder, transformer_lora_layers=layers)
    (cache() / "speed.safetensors").write_bytes((folder / "pytorch_lora_weights.safetensors").read_bytes())
    return "speed.safetensors"


def loaded(drawing: Drawing, style: LoraRef = NO_LORA) -> QwenImage:
    return QwenImage.load(cache(), config.tiny().models.base, style, CPU, FLOAT, drawing)


def picture(model: QwenImage, seeds: tuple[int, ...] = (1,), strength: float = 1.0, text: str = TEXT) -> np.ndarray:
    """Of the last seed."""
    with torch.no_grad():
        states, negative, other = (plain(model, words) for words in (text, " ", OTHER))
    drawn = model.draw(states, negative, list(seeds), 32, 4, 2.0, other if strength != 1 else None, strength)
    return np.asarray(drawn[-1], dtype=int)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference in grey levels."""
    return float(abs(one - other).mean())


@pytest.mark.parametrize("strength", [1.0, 1.7])
def test_exact_is_the_stock_picture_but_for_rounding_and_the_same_twice(strength):
    exact = loaded(Drawing("exact"))
    first = picture(exact, strength=strength)
    picture(exact, text=OTHER)
    assert (picture(exact, strength=strength) == first).all()
    assert (picture(loaded(Drawing("exact")), strength=strength) == first).all()
    assert apart(first, picture(base(), strength=strength)) < 0.1 < apart(first, picture(base(), text=OTHER))


def test_fast_is_near_the_stock_picture_with_float8_in_its_blocks_alone():
    fast = loaded(Drawing("fast", 1e-6))
    assert {name.split(".")[0] for name, m in fast.transformer.named_modules() if isinstance(m, Float8Linear)} == {
        "transformer_blocks"
    }
    first = picture(fast)
    assert 0 < apart(first, picture(base())) < 3
    assert (picture(fast, (7, 1)) == first).all(), "nothing is left of the picture before"
    assert not fast.transformer.is_cache_enabled


def test_cache_spares_blocks_where_little_changes_and_strength_has_a_cache_of_its_own(monkeypatch):
    monkeypatch.setattr(
        speed, "compiled", lambda *_: contextlib.nullcontext()
    )  # a compiled block calls no hooks inside

    def calls(threshold: float, strength: float) -> int:
        model, count = loaded(Drawing("fast", threshold)), []
        model.transformer.transformer_blocks[-1].attn.register_forward_hook(lambda *_: count.append(1))
        picture(model, strength=strength)
        return len(count)

    assert calls(1e-6, 1.0) == 2 * 4 and calls(100.0, 1.0) == 2
    assert calls(1e-6, 1.7) == 3 * 4 and calls(100.0, 1.7) == 3


def test_few_steps_have_their_schedule_no_guidance_and_the_lora_in_the_weights(lora):
    few = FewSteps(lora, steps=3, shift=3.0, scale=2.0)
    model = loaded(Drawing("lightning", few=few))
    assert model.drawing.schedule(50, 4.0) == (3, 1.0)
    calls = []
    model.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    got = picture(model)
    assert len(calls) == 3
    times = np.linspace(1, 1 / 3, 3)
    shifted = 3 * times / (1 + 2 * times)
    np.testing.assert_allclose(model.pipeline.scheduler.sigmas[:3].numpy(), shifted, rtol=1e-5)

    unfused = loaded(speed.EAGER, LoraRef(lora, scale=2.0))
    unfused.use_domain("comic")
    unfused.pipeline.scheduler = model.pipeline.scheduler
    with torch.no_grad():
        states, negative = plain(unfused, TEXT), plain(unfused, " ")
    expected = np.asarray(unfused.draw(states, negative, [1], 32, 3, 1.0)[0], dtype=int)
    unfused.use_domain("photo")
    without = np.asarray(unfused.draw(states, negative, [1], 32, 3, 1.0)[0], dtype=int)
    assert apart(got, expected) < 0.1 < apart(got, without)


@pytest.mark.parametrize("name", ["exact", "fast", "lightning"])
def test_a_style_is_switched_at_every_speed(name, lora):
    few = FewSteps(lora, steps=3) if name == "lightning" else None
    styled, bare = loaded(Drawing(name, few=few), LoraRef(lora)), loaded(Drawing(name, few=few))
    styled.use_domain("comic")
    on = picture(styled)
    styled.use_domain("photo")
    assert (picture(styled) == picture(bare)).all() and apart(on, picture(bare)) > 0.1
    styled.use_domain("comic")
    assert (picture(styled) == on).all()


@pytest.mark.parametrize("offload", ["text", "blocks"])
def test_weights_on_the_host_draw_the_same_picture(offload):
    model = loaded(Drawing(offload=offload))
    assert model.device == CPU and (picture(model) == picture(base())).all()


def test_few_steps_that_are_not_in_the_cache_are_named():
    with pytest.raises(ModelError, match="no/such"):
        loaded(Drawing("lightning", few=FewSteps("no/such")))


@pytest.mark.parametrize("name", ["exact", "fast"])
def test_nothing_is_compiled_while_a_pass_is_recorded(monkeypatch, name):
    """On a GPU that would end the recording. "exact" records the whole transformer, "fast" each of its blocks."""
    compilations, recordings = [], []

    class Graphs:
        def aside(self):
            return contextlib.nullcontext()

        def record(self, work):
            before = len(compilations)
            work()
            recordings.append(len(compilations) - before)
            return work

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    monkeypatch.setattr(compiled, "BACKEND", backend)
    monkeypatch.setattr(recording, "Graphs", Graphs)
    monkeypatch.setattr(recording, "Shared", lambda graphs, _: Shared(graphs, CPU))
    monkeypatch.setattr(speed, "replayed", lambda modules, _: recording.replayed(modules, torch.device("cuda")))
    recorded = picture(loaded(Drawing(name)))
    assert compilations and len(recordings) > 1 and not any(recordings)
    monkeypatch.setattr(speed, "replayed", recording.replayed)
    assert (recorded == picture(loaded(Drawing(name)))).all()

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention, Qwen3VLVisionPatchEmbed

from harald import config
from harald.encoder import pictures
from harald.encoder.model import PersonEncoder, load_encoder, mix_layers
from harald.errors import ModelError
from tests.models import CPU, FLOAT, base, cache, encoder


def picture(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("references", [1, 2, 3, 5])
def test_number_of_tokens_does_not_depend_on_the_number_of_references(references):
    tokens = encoder()([[picture(i) for i in range(references)]])
    assert tokens.shape == (1, config.tiny().encoder.tokens, base().width)
    assert tokens.dtype == torch.float32 and tokens.isfinite().all()


def test_samples_of_different_layout_do_not_touch_each_other():
    """No padding: a sample among others has the bits it has alone."""
    e = encoder()
    one, two, wide = [picture(1)], [picture(2), picture(3)], [picture(4, (32, 64))]
    together = e([two, one, wide])
    for index, sample in enumerate((two, one, wide)):
        torch.testing.assert_close(together[index], e([sample])[0], rtol=0, atol=1e-6)


def test_tokens_depend_on_every_reference():
    e = encoder()
    assert not torch.equal(e([[picture(1), picture(2)]]), e([[picture(1), picture(3)]]))
    assert not torch.equal(e([[picture(1), picture(2)]]), e([[picture(0), picture(2)]]))


def test_the_library_makes_no_mask_of_its_own(monkeypatch):
    """While a step is recorded some versions would, and a GPU then takes another kernel."""
    expected = encoder()([[picture(1), picture(2)]])
    monkeypatch.setattr(pictures, "_library_mask", lambda *_, **__: pytest.fail("made a mask"))
    assert torch.equal(encoder()([[picture(1), picture(2)]]), expected)


def test_every_trained_part_gets_a_gradient_and_nothing_else_does():
    e = encoder()
    e([[picture(1)]]).square().sum().backward()
    for name, parameter in e.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trained = set(e.trained_state())
    assert any("lora_A" in n for n in trained) and "queries" in trained and "mix.logits" in trained
    assert any(n.startswith("vlm.visual") for n in trained)
    assert not any("language_model" in n and "lora" not in n for n in trained)


def test_vision_tower_can_be_trained_by_lora_alone_or_not_at_all():
    c = config.tiny()
    for vision, parts in (("lora", {True}), ("frozen", set())):
        settings = dataclasses.replace(c.encoder, vision=vision)
        e = PersonEncoder.new(
            cache(), settings, c.models.encoder, torch.ones(base().width), "output", "b", 0, CPU, FLOAT
        )
        e([[picture(1)]]).square().sum().backward()
        assert {"lora" in name for name in e.trained_state() if "visual" in name} == parts
        assert all((p.grad is not None) == p.requires_grad for p in e.parameters())


def test_last_norm_starts_at_the_given_scale():
    c = config.tiny()
    scale = torch.linspace(0.5, 2, base().width)
    e = PersonEncoder.new(cache(), c.encoder, c.models.encoder, scale, "output", "base", 0, CPU, FLOAT)
    tokens = e([[picture(1)]])[0]
    assert torch.allclose((tokens / scale).square().mean(-1), torch.ones(len(tokens)), atol=1e-3)


def test_each_of_a_slots_two_vectors_starts_at_its_own_scale():
    c, width = config.tiny(), base().width
    scale = torch.cat([torch.full((width,), 0.02), torch.linspace(0.5, 2, width)])
    e = PersonEncoder.new(cache(), c.encoder, c.models.encoder, scale, "both", "base", 0, CPU, FLOAT)
    tokens = (e([[picture(1)]])[0] / scale).unflatten(-1, (2, width))
    assert torch.allclose(tokens.square().mean(-1), torch.ones(c.encoder.tokens, 2), atol=1e-3)
    assert not torch.equal(tokens[:, 0], tokens[:, 1])


def test_same_seed_same_encoder_and_another_seed_another():
    a, b, other = encoder(0), encoder(0), encoder(1)
    assert all(torch.equal(x, y) for x, y in zip(a.trained_state().values(), b.trained_state().values(), strict=True))
    assert not torch.equal(a.queries, other.queries)


def test_hub_object_round_trip_gives_the_same_tokens(tmp_path):
    e = encoder()
    with torch.no_grad():
        for parameter in e.trained_state().values():
            parameter.add_(0.01)
    e.save_pretrained(tmp_path)
    assert torch.equal(load_encoder(cache(), tmp_path, CPU, FLOAT)([[picture(1)]]), e([[picture(1)]]))
    again = PersonEncoder.from_pretrained(str(tmp_path), cache_dir=str(cache()), device=CPU, dtype=FLOAT)
    assert torch.equal(again([[picture(1)]]), e([[picture(1)]]))


def test_saved_encoder_holds_only_what_was_trained(tmp_path):
    encoder().save_pretrained(tmp_path)
    frozen = sum(p.numel() * 4 for p in encoder().parameters() if not p.requires_grad)
    assert (tmp_path / "encoder.safetensors").stat().st_size < frozen * 10
    assert not list(tmp_path.glob("*.bin")) and not list(tmp_path.glob("*.pt"))


def test_folder_without_an_encoder_and_misfitting_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match="holds no encoder"):
        load_encoder(cache(), tmp_path, CPU, FLOAT)
    e = encoder()
    state = {**e.trained_state()}
    state.pop("queries")
    with pytest.raises(ModelError, match="1 differ, first queries"):
        e.load_trained_state(state)


def test_more_queries_than_reserved_ids_are_refused():
    c = config.tiny()
    many = dataclasses.replace(c.encoder, groups=(("all", 1000),))
    with pytest.raises(ModelError, match="has 128 reserved vocabulary ids, 1000 queries"):
        PersonEncoder.new(cache(), many, c.models.encoder, torch.ones(64), "output", "b", 0, CPU, FLOAT)


def test_mixed_layers_are_evenly_spaced_and_end_with_the_last():
    assert mix_layers(36, 6) == [6, 12, 18, 24, 30, 36]
    assert mix_layers(4, 2) == [2, 4]
    assert mix_layers(2, 6) == [1, 2]


def test_reading_equals_the_librarys_own_forward_pass_and_gradients():
    """Ours sends all pictures of one size through the vision tower at once; the library reads sample by sample."""
    e, reference = encoder(), encoder()
    for block in reference.vlm.visual.blocks:
        block.attn.__class__ = Qwen3VLVisionAttention
    reference.vlm.visual.patch_embed.__class__ = Qwen3VLVisionPatchEmbed
    del reference.vlm.language_model._deepstack_process
    samples = [[picture(1)], [picture(2), picture(3)], [picture(4, (32, 64)), picture(5)], [picture(6), picture(7)]]
    weights = torch.randn(len(samples), e.config.tokens, base().width, generator=torch.Generator().manual_seed(0))
    ours, theirs = e(samples), torch.cat([library_tokens(reference, sample) for sample in samples])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    for tokens in (ours, theirs):
        (tokens * weights).sum().backward()
    for (name, a), b in zip(e.named_parameters(), reference.parameters(), strict=True):
        if a.grad is not None:
            assert (a.grad - b.grad).norm() <= 1e-4 * b.grad.norm(), name


def library_tokens(e: PersonEncoder, pictures: list[Image.Image]) -> torch.Tensor:
    ((_, chat),) = e.chats.build([pictures])
    read = e.chats.processor(images=pictures, size=e.chats.size, return_tensors="pt")
    embeddings = e.vlm.get_input_embeddings()(chat.ids[None]).clone()
    embeddings[:, -e.config.tokens :] = e.queries
    kinds, grids = chat.kinds[None], read["image_grid_thw"]
    states = e.vlm(
        inputs_embeds=embeddings,
        position_ids=e.vlm.get_rope_index(chat.ids[None], mm_token_type_ids=kinds, image_grid_thw=grids)[0],
        pixel_values=read["pixel_values"],
        image_grid_thw=grids,
        output_hidden_states=True,
    ).hidden_states
    return e.connector(e.mix(torch.stack([states[layer][:, -e.config.tokens :] for layer in e.layers])))


def test_layers_read_are_pre_norm_but_for_the_last_which_is_post_norm():
    """transformers changed this between 4 and 5: hidden_states[-1] is after the final norm, the others before any."""
    e = encoder()
    (_, chat), *_ = e.chats.build([[picture(1)]])
    caught = {}
    hooks = [
        layer.register_forward_hook(lambda m, a, out, i=i: caught.__setitem__(i, out))
        for i, layer in enumerate(e.vlm.language_model.layers, 1)
    ]
    hooks.append(e.vlm.language_model.norm.register_forward_hook(lambda m, a, out: caught.__setitem__("norm", out)))
    with torch.no_grad():
        read = e._read(chat, e._see([([0], chat)])[0])
    [hook.remove() for hook in hooks]
    k = e.config.tokens
    assert torch.equal(read[0], caught[2][:, -k:])
    assert torch.equal(read[1], caught["norm"][:, -k:])


def test_pictures_are_scaled_to_the_pixel_budget():
    e = encoder()
    (_, small), *_ = e.chats.build([[picture(1, (64, 64))]])
    (_, large), *_ = e.chats.build([[picture(1, (256, 256))]])
    assert small.grids == large.grids


def test_weights_of_the_cache_are_left_alone():
    before = {p: p.stat().st_mtime_ns for p in Path(cache()).rglob("*.safetensors")}
    e = encoder()
    e([[picture(1)]]).sum().backward()
    assert before == {p: p.stat().st_mtime_ns for p in Path(cache()).rglob("*.safetensors")}

import copy

import pytest
import torch
from diffusers import QwenImagePipeline

from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL
from harald.base.qwen_image import MAX_STATES, TEXTS, check_length
from harald.errors import PromptError
from harald.injection.points import plain
from tests.models import base

TEXT = "a photo of a young woman with long red hair, laughing, in a park"


def test_template_is_the_pipelines():
    pipeline: QwenImagePipeline = base().pipeline
    assert pipeline.prompt_template_encode == TEMPLATE_HEAD + "{}" + TEMPLATE_TAIL
    assert base().head == pipeline.prompt_template_encode_start_idx == 34


def test_states_of_a_plain_prompt_are_bit_equal_to_the_pipelines():
    expected, mask = base().pipeline.encode_prompt(TEXT)
    assert mask is None
    assert torch.equal(plain(base(), TEXT), expected[0])


def test_picture_is_bit_equal_to_the_stock_pipelines():
    stock = base().pipeline(
        TEXT, negative_prompt=" ", true_cfg_scale=2.0, height=64, width=64, num_inference_steps=3,
        generator=torch.Generator().manual_seed(5), max_sequence_length=1024,
    ).images[0]  # fmt: skip
    ours = base().draw(plain(base(), TEXT), plain(base(), " "), [5], size=64, steps=3, guidance=2.0)[0]
    assert ours.tobytes() == stock.tobytes()


def test_one_seed_one_picture_whatever_its_neighbours():
    states, negative = plain(base(), TEXT), plain(base(), " ")
    alone = base().draw(states, negative, [2], 32, 2, 1.0)[0]
    among = base().draw(states, negative, [1, 2, 3], 32, 2, 1.0)
    assert among[1].tobytes() == alone.tobytes()
    assert among[0].tobytes() != alone.tobytes()


def test_encoded_and_decoded_latents_have_the_published_normalisation():
    """Latents go through the VAE's own mean and std: undoing them by hand gives the raw moments."""
    b, pixels = base(), torch.rand(1, 3, 32, 32) * 2 - 1
    raw = b.vae.encode(pixels[:, :, None]).latent_dist.mode()[:, :, 0]
    packed = b.encode_images(pixels)
    unpacked = b.pipeline._unpack_latents(packed, 32, 32, b.pipeline.vae_scale_factor)[:, :, 0]
    mean, std = (torch.tensor(b.vae.config[n]).view(1, -1, 1, 1) for n in ("latents_mean", "latents_std"))
    assert torch.allclose(unpacked * std + mean, raw, atol=1e-5)


def test_latents_of_a_picture_do_not_depend_on_its_neighbours():
    """Bit for bit, which a plain batch of another number would not give."""
    b, pixels = base(), torch.rand(11, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    together = b.encode_images(pixels)
    assert torch.equal(b.encode_images(pixels[[9, 2]]), together[[9, 2]])
    assert torch.equal(b.encode_images(pixels[4:5]), together[4:5])


def test_a_batch_of_two_equals_two_batches_of_one():
    b, generator = base(), torch.Generator().manual_seed(0)
    latents, t = torch.randn(2, 16, 64, generator=generator), torch.tensor([0.3, 0.8])
    states = torch.stack([plain(b, "a photo of a man"), plain(b, "a photo of a woman")])
    both = b.velocity(latents, t, states, 64)
    single = torch.cat([b.velocity(latents[i : i + 1], t[i : i + 1], states[i : i + 1], 64) for i in range(2)])
    torch.testing.assert_close(both, single, rtol=0, atol=2e-6)  # matrix products of 1 and 2 rows round differently


def test_gradients_reach_the_states_bit_equal_with_and_without_checkpointing():
    b = base()

    def gradient() -> torch.Tensor:
        states = plain(b, TEXT)[None].clone().requires_grad_()
        b.velocity(torch.ones(1, 16, 64), torch.tensor([0.5]), states, 64).square().mean().backward()
        assert states.grad is not None
        return states.grad

    with_graph = gradient()
    b.transformer.enable_gradient_checkpointing()
    try:
        assert torch.equal(gradient(), with_graph)
    finally:
        b.transformer.disable_gradient_checkpointing()
    assert with_graph.abs().sum() > 0


def test_too_long_a_prompt_is_refused_with_its_length():
    with pytest.raises(PromptError, match=r"the prompt has 1[0-9]{3} tokens, the base model reads at most 1024"):
        plain(base(), "park " * 1100)


def test_prompt_and_tokens_together_are_checked_and_long_ones_warned_of(caplog):
    check_length(MAX_STATES)
    assert "trained on 512" in caplog.text
    with pytest.raises(PromptError, match="1025 tokens"):
        check_length(MAX_STATES + 1)


def test_a_text_that_comes_again_is_not_encoded_again_and_has_the_same_bytes(monkeypatch):
    model, encoded = copy.copy(base()), []
    model.texts, own = {}, model.text_states
    monkeypatch.setattr(model, "text_states", lambda embeddings: encoded.append(1) or own(embeddings))
    first, other = plain(model, "a person"), plain(model, "a person ")
    assert torch.equal(plain(model, "a person"), first) and first.shape != other.shape and len(encoded) == 2
    ids = torch.tensor([model.tokenize(TEMPLATE_HEAD + "a person" + TEMPLATE_TAIL)])
    assert torch.equal(first, own(model.word_embeddings(ids))[0])
    for number in range(TEXTS):
        model.read(model.tokenize(TEMPLATE_HEAD + f"a person {number}"))
    assert len(model.texts) == TEXTS, "bounded"
    plain(model, "a person")
    assert len(encoded) == 3 + TEXTS, "the first ones are gone"

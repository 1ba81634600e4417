import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers import transformer_qwenimage as stock
from torch.utils._python_dispatch import TorchDispatchMode

from harald.base.compiled import compiled, recordable
from harald.base.text_mask import masked_by_channel
from harald.proving_ground.mini_models import TINY

CALL = {
    "hidden_states": torch.randn(2, 16, 64),
    "encoder_hidden_states": torch.randn(2, 7, 64),
    "encoder_hidden_states_mask": torch.tensor([[True] * 7, [True] * 4 + [False] * 3]),
    "timestep": torch.tensor([0.3, 0.8]),
    "img_shapes": [[(1, 4, 4)]],
    "return_dict": False,
}


class FromTheHost(TorchDispatchMode):
    """Counts what CUDA cannot record: numbers that come from the host or go there."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.name() in ("aten::lift_fresh", "aten::_local_scalar_dense")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return QwenImageTransformer2DModel(joint_attention_dim=64, **TINY.transformer).eval()


def test_recordable_transformer_draws_the_same_and_leaves_nothing_behind(model):
    names, hooks = dict(vars(stock)), len(model.pos_embed._forward_hooks)
    before = model(**CALL)[0]
    with recordable(model):
        inside = model(**CALL)[0]
    assert torch.equal(model(**CALL)[0], before)
    torch.testing.assert_close(inside, before, rtol=1e-5, atol=1e-5)
    assert not torch.equal(inside, torch.zeros_like(inside))
    assert vars(stock) == names and len(model.pos_embed._forward_hooks) == hooks


def test_embeddings_of_places_are_no_parts_of_a_table(model):
    """They would begin at another place for every size of picture, and be compiled anew."""
    seen = []
    block = model.transformer_blocks[0]
    hook = block.register_forward_pre_hook(
        lambda _, args, named: seen.extend(named["image_rotary_emb"]), with_kwargs=True
    )
    with recordable(model):
        model(**CALL)
    hook.remove()
    assert len(seen) == 2 and [freqs.storage_offset() for freqs in seen] == [0, 0]
    assert all(freqs.is_contiguous() for freqs in seen)


def test_recordable_transformer_takes_nothing_from_the_host(model):
    with recordable(model):
        model(**CALL)  # the frequencies are cached
        with FromTheHost() as seen:
            model(**CALL)[0].sum().backward()
    assert seen.count == 0
    with FromTheHost() as seen:
        model(**CALL)
    assert seen.count, "the stock transformer needs no help any more"


def test_compiled_blocks_draw_the_same_and_can_be_left(model):
    """On a CPU by AOTAutograd alone: what Inductor makes of it is for a GPU."""
    before = model(**CALL)[0]
    with compiled(model, backend="aot_eager"):
        inside = model(**CALL)[0]
        assert all("forward" in vars(block) for block in model.transformer_blocks)
    torch.testing.assert_close(inside, before, rtol=1e-5, atol=1e-5)
    assert not any("forward" in vars(block) for block in model.transformer_blocks)
    assert torch.equal(model(**CALL)[0], before)


class Compiled:
    """A backend that counts what it is asked to compile."""

    def __init__(self):
        self.count = 0

    def __call__(self, graph, inputs):
        self.count += 1
        return graph.forward


def test_a_text_of_any_length_needs_no_new_compilation_and_which_came_first_does_not_matter(model):
    torch._dynamo.reset()
    backend = Compiled()
    with compiled(model, backend=backend):
        model(**CALL)
        first = backend.count
        for length in (3, 11, 192, 200):
            states = torch.randn(2, length, 64)
            for mask in (None, torch.arange(length) < torch.tensor([[length], [2]])):
                model(**CALL | {"encoder_hidden_states": states, "encoder_hidden_states_mask": mask})
    assert first == 1 and backend.count == 2, "one with a mask, one without"
    for _ in range(2):
        with compiled(model, backend=backend):
            model(**CALL)
    assert backend.count == 2, "what was compiled is kept"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_gradients_through_compiled_blocks_are_those_of_eager_ones(model, share):
    states = CALL["encoder_hidden_states"].clone().requires_grad_()
    if share:
        model.enable_gradient_checkpointing()

    def gradient():
        return torch.autograd.grad(model(**CALL | {"encoder_hidden_states": states})[0].square().sum(), states)[0]

    expected = gradient()
    with compiled(model, backend="aot_eager"):
        got, again = gradient(), gradient()
    assert torch.equal(got, again) and expected.abs().max() > 0
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_a_channel_masks_as_a_mask_does():
    query, key, value = (torch.randn(2, 9, 3, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    mask = torch.arange(9) < torch.tensor([[9], [4]])
    attend = stock.dispatch_attention_fn
    expected = attend(query, key, value, attn_mask=mask[:, None, None])
    got = masked_by_channel(attend)(query, key, value, attn_mask=mask[:, None, None])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    assert not torch.allclose(got, attend(query, key, value))
    other = torch.where(mask[:, :, None, None], value, value + 1e3)  # what is not read changes no bit
    assert torch.equal(masked_by_channel(attend)(query, key, other, attn_mask=mask[:, None, None]), got)

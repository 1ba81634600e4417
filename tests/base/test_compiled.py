import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers import transformer_qwenimage as stock
from torch.utils._python_dispatch import TorchDispatchMode

from harald.base.compiled import compiled, recordable
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
        assert all(block._compiled_call_impl is not None for block in model.transformer_blocks)
    torch.testing.assert_close(inside, before, rtol=1e-5, atol=1e-5)
    assert all(block._compiled_call_impl is None for block in model.transformer_blocks)
    assert torch.equal(model(**CALL)[0], before)

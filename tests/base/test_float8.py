import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from harald.base.float8 import Float8Linear, rows_in_float8, to_float8
from harald.proving_ground.mini_models import TINY


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(96, 160).requires_grad_(False)


def inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_rows_keep_their_direction_whatever_their_size():
    x = inputs(8, 64) * torch.logspace(-6, 6, 8)[:, None]
    values, scales = rows_in_float8(x)
    assert values.dtype == torch.float8_e4m3fn and F.cosine_similarity(values.float(), x).min() > 0.999
    assert ((values.float() * scales - x).abs() <= 0.07 * x.abs() + 0.002 * x.abs().amax(1, keepdim=True)).all()


@pytest.mark.parametrize("twice", [True, False])
def test_layer_and_its_gradient_are_those_of_the_linear_layer_to_float8(linear, twice):
    layer = Float8Linear(linear, twice)
    x, y = (inputs(3, 5, 96).requires_grad_() for _ in range(2))
    out, expected = layer(x), linear(y)
    assert out.shape == expected.shape and out.dtype == expected.dtype
    assert F.cosine_similarity(out.flatten(), expected.flatten(), 0) > 0.998
    towards = inputs(3, 5, 160)
    out.backward(towards)
    expected.backward(towards)
    assert x.grad is not None and y.grad is not None
    assert F.cosine_similarity(x.grad.flatten(), y.grad.flatten(), 0) > 0.998
    assert (x.grad.norm() / y.grad.norm() - 1).abs() < 0.01
    assert torch.equal(out, layer(x.detach())), "with and without gradients it is one layer"


def test_another_number_type_leaves_the_weights(linear):
    layer = Float8Linear(linear)
    before = layer(inputs(4, 96))
    assert torch.equal(layer.to(torch.bfloat16).rows, Float8Linear(linear).rows)
    after = layer(inputs(4, 96).bfloat16())
    assert after.dtype == torch.bfloat16
    assert F.cosine_similarity(after.float().flatten(), before.flatten(), 0) > 0.998


def test_turned_in_every_backward_pass_it_takes_half_the_bytes(linear):
    def size(layer: nn.Module) -> int:
        return sum(b.numel() * b.element_size() for b in layer.buffers() if b.dtype == torch.uint8)

    assert size(Float8Linear(linear)) == 2 * 96 * 160 == 2 * size(Float8Linear(linear, twice=False))


def test_blocks_give_up_their_large_layers_and_nothing_else():
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(joint_attention_dim=64, **TINY.transformer).eval().requires_grad_(False)
    call = {
        "hidden_states": inputs(2, 16, 64), "encoder_hidden_states": inputs(2, 7, 64), "return_dict": False,
        "timestep": torch.tensor([0.3, 0.8]), "img_shapes": [[(1, 4, 4)]] * 2,
    }  # fmt: skip
    before = model(**call)[0]
    count = to_float8(model.transformer_blocks)
    assert count == 2 * (8 + 4)  # of each block: eight of attention, two of each of the two MLPs
    left = {name for name, layer in model.transformer_blocks.named_modules() if type(layer) is nn.Linear}
    assert left and all("_mod." in name for name in left)
    after = model(**call)[0]
    assert not torch.equal(after, before)
    assert F.cosine_similarity(after.flatten(), before.flatten(), 0) > 0.995


def test_what_is_trained_stays():
    layers = nn.ModuleDict(
        {"frozen": nn.Linear(32, 32).requires_grad_(False), "lora_A": nn.Linear(32, 32), "odd": nn.Linear(32, 17)}
    )
    layers.requires_grad_(False)
    layers["trained"] = nn.Linear(32, 32)
    assert to_float8(layers) == 1 and isinstance(layers["frozen"], Float8Linear)


@pytest.mark.parametrize("twice", [True, False])
def test_compiled_it_is_the_same_layer(linear, twice):
    layer = Float8Linear(linear, twice)
    fast = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x, y = (inputs(4, 96).requires_grad_() for _ in range(2))
    assert torch.equal(fast(x), layer(y))
    one, other = (torch.autograd.grad(f(t).square().sum(), t)[0] for f, t in ((fast, x), (layer, y)))
    assert torch.equal(one, other) and one.abs().max() > 0

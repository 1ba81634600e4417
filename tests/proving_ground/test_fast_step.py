import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.transformers import transformer_qwenimage as stock

from harald.proving_ground.mini_models import TINY
from harald.proving_ground.pretraining.fast_step import real_rotary


def test_real_rotary_draws_the_same_and_leaves_nothing_behind():
    torch.manual_seed(0)
    model = QwenImageTransformer2DModel(joint_attention_dim=64, **TINY.transformer).eval()
    call = {
        "hidden_states": torch.randn(2, 16, 64),
        "encoder_hidden_states": torch.randn(2, 7, 64),
        "encoder_hidden_states_mask": torch.tensor([[True] * 7, [True] * 4 + [False] * 3]),
        "timestep": torch.tensor([0.3, 0.8]),
        "img_shapes": [[(1, 4, 4)]],
        "return_dict": False,
    }
    function, hooks = stock.apply_rotary_emb_qwen, len(model.pos_embed._forward_hooks)
    before = model(**call)[0]
    with real_rotary(model):
        inside = model(**call)[0]
    assert torch.equal(model(**call)[0], before)
    torch.testing.assert_close(inside, before, rtol=1e-5, atol=1e-5)
    assert not torch.equal(inside, torch.zeros_like(inside))
    assert stock.apply_rotary_emb_qwen is function and len(model.pos_embed._forward_hooks) == hooks

"""Pictures of one size through Qwen3-VL's vision tower in one go; the library makes one attention call a picture."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionAttention, apply_rotary_pos_emb_vision


class EqualPictures(Qwen3VLVisionAttention):
    """The library's attention for pictures of one size: the same parameters and the same result."""

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """[pictures * patches, width] -> the same. cu_seqlens: [pictures + 1]."""
        assert position_embeddings is not None, "the tower always hands them over"
        rows, pictures = len(hidden_states), len(cu_seqlens) - 1
        query, key, value = self.qkv(hidden_states).reshape(rows, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        parts = [x.reshape(pictures, rows // pictures, self.num_heads, -1).transpose(1, 2) for x in (query, key, value)]
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2].to(parts[0].dtype), scale=self.scaling)
        return self.proj(seen.transpose(1, 2).reshape(rows, -1))


def expect_equal_pictures(visual: Any) -> None:
    """From now on the tower must be called with pictures of one size. visual: Qwen3VLVisionModel; its weights stay."""
    for block in visual.blocks:
        block.attn.__class__ = EqualPictures

"""Qwen3-VL's own layers where every sample of a batch has pictures of the same sizes at the same places: one attention
call for all pictures, patches by one matrix, and features put into their places by concatenation (the library's masks
make the host wait for the device, and their gradients need a sort where they must be the same twice).
"""

from collections.abc import Sequence
from contextvars import ContextVar
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.qwen3_vl import modeling_qwen3_vl
from transformers.models.qwen3_vl.modeling_qwen3_vl import (
    Qwen3VLVisionAttention,
    Qwen3VLVisionPatchEmbed,
    apply_rotary_pos_emb_vision,
)
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)


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


class FlatPatches(Qwen3VLVisionPatchEmbed):
    """The library's convolution, whose kernel is as large as its input, as the matrix product that it is."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[patches, values of one patch] -> [patches, width]."""
        weight = self.proj.weight
        return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


def add_everywhere(states: Tensor, _: None, features: Tensor) -> Tensor:
    """The text model's `_deepstack_process` for features [b, l, h] that are zero where no picture stands."""
    return states + features


def expect_equal_pictures(vlm: Any) -> None:
    """From now on all pictures of a call of the tower have one size, and `read` calls the text model.

    vlm: Qwen3VLModel; its weights stay.
    """
    assert vlm.language_model.config._attn_implementation == "sdpa", "`read` gives no mask"
    vlm.language_model._deepstack_process = add_everywhere  # its class must stay: it records hidden states by name
    vlm.visual.patch_embed.__class__ = FlatPatches
    for block in vlm.visual.blocks:
        block.attn.__class__ = EqualPictures


def tower_inputs(visual: Any, grid: tuple[int, int, int], count: int, device: torch.device) -> dict[str, Any]:
    """What the tower makes of the sizes alone, for `count` pictures of one grid (t, h, w): its arguments by name. Made
    by the library's own functions, on the host: from sizes on the device it would ask the device for each of them.
    """
    frames, h, w = grid
    grids = torch.tensor([[frames * count, h, w]])  # still pictures are frames
    merge = visual.config.spatial_merge_size
    indices, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=merge,
    )
    made = {
        "interp_indices": indices,
        "interp_weights": weights,
        "position_ids": get_vision_position_ids(grids, merge),
        "cu_seqlens": get_vision_cu_seqlens(grids),
    }
    return {"grid_thw": grids} | {name: value.to(device) for name, value in made.items()}


def read(vlm: Any, embeddings: Tensor, kinds: Tensor, seen: Sequence[Tensor], places: Tensor, **options: Any) -> Any:
    """What the text model makes of a chat with pictures. options: its own, such as attention_mask [b, 1, l, l], by
    default causal.

    embeddings: [b, l, h]; kinds: [l] on the host, 1 where a picture's token stands; seen: what is pooled, and then the
    levels of DeepStack, [b, tokens of all pictures, h] each; places: [3, b, l].
    """
    pooled, *deep = (level.to(embeddings.dtype) for level in seen)
    nothing = torch.zeros_like(embeddings)
    token = _as_given.set(True)
    try:
        return vlm.language_model(
            inputs_embeds=_put(pooled, kinds, embeddings),
            position_ids=places,
            deepstack_visual_embeds=[_put(level, kinds, nothing) for level in deep],
            use_cache=False,
            **options,
        )
    finally:
        _as_given.reset(token)


_as_given = ContextVar("masks are taken as they are given", default=False)
_library_mask = modeling_qwen3_vl.create_causal_mask


def _causal_mask(*args: Any, attention_mask: Tensor | None, **options: Any) -> Any:
    """The library's create_causal_mask, but within `read` no mask stays no mask, for which "sdpa" is causal by itself:
    while a stream is recorded transformers before 5.23 makes one, and attention then takes a slower kernel.
    """
    if _as_given.get():
        return attention_mask
    return _library_mask(*args, attention_mask=attention_mask, **options)


vars(modeling_qwen3_vl)["create_causal_mask"] = _causal_mask


def _put(features: Tensor, kinds: Tensor, elsewhere: Tensor) -> Tensor:
    """The features in order where kinds is 1, `elsewhere` at the other places: [b, l, h]."""
    parts, place, taken = [], 0, 0
    for shown, run in groupby(kinds.tolist()):
        size = len(list(run))
        parts.append(features[:, taken : taken + size] if shown else elsewhere[:, place : place + size])
        place, taken = place + size, taken + size * bool(shown)
    return torch.cat(parts, 1)

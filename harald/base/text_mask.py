"""The MMDiT's mask of padded prompts, without waiting for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.transformers import transformer_qwenimage as stock
from torch import Tensor
from torch.nn import functional as F


def text_length(states: Tensor, mask: Tensor | None) -> tuple[int, None, Tensor | None]:
    """diffusers' compute_text_seq_len_from_mask without the lengths of the samples, which nothing reads: they take a
    number from the host, which makes it wait, and which a recorded step must not do.

    states: [b, l, d]; mask: bool [b, l], False where padded.
    """
    return states.shape[1], None, mask


@contextmanager
def no_lengths() -> Iterator[None]:
    """Inside, diffusers' MMDiT reads masks with `text_length`."""
    with replaced(compute_text_seq_len_from_mask=text_length):
        yield


@contextmanager
def replaced(**functions: Callable[..., Any]) -> Iterator[None]:
    """Inside, the module of diffusers' MMDiT has these functions."""
    before = {name: vars(stock)[name] for name in functions}
    vars(stock).update(functions)
    try:
        yield
    finally:
        vars(stock).update(before)


NOT_READ = -1e5  # far below every score: the exponential of it is 0
CHANNELS = 8  # kernels take heads of a multiple


def masked_by_channel(attention: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """diffusers' dispatch_attention_fn with one more channel in the place of a mask: there the query is 1, the key is
    0, or NOT_READ where it must not be read. So masked texts take the fast kernels, too, which take no mask.

    query, key, value: [b, s, h, d]; attn_mask: bool [b, 1, 1, s]. Equal to the mask but for rounding.
    """

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        if attn_mask is None:
            return attention(query, key, value, attn_mask=None, **options)
        width = query.shape[-1]
        left_out = (~attn_mask[:, 0, 0, :, None, None]).to(key) * NOT_READ
        key = torch.cat([key, F.pad(left_out, (0, CHANNELS - 1)).expand(-1, -1, key.shape[2], -1)], -1)
        query = torch.cat([query, F.pad(torch.ones_like(query[..., :1]), (0, CHANNELS - 1))], -1)
        options["scale"] = width**-0.5
        return attention(query, key, F.pad(value, (0, CHANNELS)), attn_mask=None, **options)[..., :width]

    return attend

"""The MMDiT's mask of padded prompts, without waiting for the device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.models.transformers import transformer_qwenimage as stock
from torch import Tensor


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

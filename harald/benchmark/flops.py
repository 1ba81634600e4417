"""Floating-point operations of a piece of work: products of matrices, convolutions and attention, nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

KERNELS = ("flash", "efficient", "cudnn")


def counted(work: Callable[[], Any]) -> int:
    """Of the work, which must be eager."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        work()
    return counter.get_total_flops()


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, **named: Any) -> int:
    """Of shapes [b, h, s, d]; keys and values may have fewer heads, which not every PyTorch counts.

    >>> attention((1, 8, 10, 4), (1, 2, 20, 4), (1, 2, 20, 4)) == 2 * (2 * 8 * 10 * 20 * 4)
    True
    """
    batch, heads, length, width = query
    return 2 * batch * heads * length * key[2] * (width + value[3])


def attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *rest: Any, **named: Any
) -> int:
    """Twice as many; kernels that compute the scores again compute more."""
    return 2 * attention(query, key, value)


def _named(kernel: str, suffix: str = "") -> Any:
    return getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention{suffix}")


FORMULAS: dict[Any, Callable[..., int]] = {
    **{_named(kernel): attention for kernel in KERNELS},
    **{_named(kernel, "_backward"): attention_backward for kernel in KERNELS},
}

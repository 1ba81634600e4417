"""Qwen-Image's MMDiT compiled block by block: one block is compiled, all use it (regional compilation)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config as inductor

from harald.base.text_mask import no_lengths, replaced

# Kernels that Inductor fuses give the blocks other gradients in every call (PyTorch 2.11, H200); these do not.
SAME_TWICE = {
    "deterministic": True, "max_fusion_size": 1, "epilogue_fusion": False, "aggressive_fusion": False,
    "triton.mix_order_reduction": False,
}  # fmt: skip


def rotate(x: Tensor, freqs_cis: Tensor, use_real: bool = False) -> Tensor:
    """diffusers' apply_rotary_emb_qwen without complex numbers, for which Inductor has no code.

    x: [b, s, h, d]; freqs_cis: [s, d / 2, 2], cosine and sine.
    """
    assert not use_real, "the Qwen processor asks for the complex form"
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = freqs_cis[:, None, :, 0], freqs_cis[:, None, :, 1]
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(3).type_as(x)


@contextmanager
def recordable(transformer: Any, turn: Callable[..., Tensor] = rotate) -> Iterator[None]:
    """Inside, the transformer can be compiled and recorded: real rotary embeddings (the same numbers to float32
    rounding) and nothing from the host.
    """
    hook = transformer.pos_embed.register_forward_hook(
        lambda module, inputs, output: tuple(torch.view_as_real(freqs).contiguous() for freqs in output)
    )
    try:
        with no_lengths(), replaced(apply_rotary_emb_qwen=turn):
            yield
    finally:
        hook.remove()


@contextmanager
def compiled(transformer: Any, deterministic: bool = True, backend: str = "inductor") -> Iterator[None]:
    """Inside, the blocks are compiled, each shape at its first call; outside they are as they were, and what was
    compiled is kept for the next time. deterministic: without the fusions that give other bits in every call.
    """
    blocks, options = transformer.transformer_blocks, SAME_TWICE if deterministic else {}
    before = [block._compiled_call_impl for block in blocks]
    for block in blocks:
        block.compile(dynamic=False, backend=backend)
    try:
        with recordable(transformer), inductor.patch(options):
            yield
    finally:
        for block, call in zip(blocks, before, strict=True):
            block._compiled_call_impl = call

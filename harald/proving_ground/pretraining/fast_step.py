"""The stock MMDiT so that it can be compiled, and steps of it recorded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harald.base.text_mask import no_lengths, replaced


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


class Function(nn.Module):
    """A function as a module, so that make_graphed_callables knows whose gradients are wanted."""

    def __init__(self, parts: list[nn.Module], function: Callable[..., Tensor]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def recorded(parts: list[nn.Module], function: Callable[..., Tensor], sample: tuple[Tensor, ...]) -> Any:
    """function(*inputs) as CUDA graphs of its forward and backward pass; the inputs always have the shapes and types
    of `sample`. What it returns, and the gradients, are overwritten by the next call.

    parts: the modules whose parameters get gradients.
    """
    places = tuple(tensor.clone() for tensor in sample)  # later inputs are copied there
    return torch.cuda.make_graphed_callables(Function(parts, function), places, allow_unused_input=True)

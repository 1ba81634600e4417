"""Steps of the pretraining as CUDA graphs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


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

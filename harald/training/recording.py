"""Losses as CUDA graphs: forward and backward pass are recorded once and launched as one.

At small sizes a step is a few thousand small kernels; launching them one by one takes longer than running them. A
recording computes what the plain call computes, with the same kernels.
"""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harald.base import BaseModel
from harald.config import Config
from harald.encoder.chat import Chat
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.training.batch import Batch, each_tensor
from harald.training.step import measured_loss

MOST = 64  # each holds memory of its own


class Function(nn.Module):
    """A function as a module, so that make_graphed_callables knows whose gradients are wanted."""

    def __init__(self, parts: list[nn.Module], function: Callable[..., Any]):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def recorded(
    parts: list[nn.Module], function: Callable[..., Any], sample: tuple[Tensor, ...], pool: Any = None
) -> Callable[..., Any]:
    """function(*inputs) as CUDA graphs; the inputs always have the shapes and types of `sample`. What it returns, and
    the gradients, are overwritten by the next call.

    parts: the modules whose parameters get gradients. pool: of memory, shared with recordings that are never under way
    at the same time.
    """
    return torch.cuda.make_graphed_callables(Function(parts, function), sample, allow_unused_input=True, pool=pool)


class Recorder:
    """`measured_loss`, recorded once for every size of batch. Which batch comes first changes no byte."""

    def __init__(self, base: BaseModel, encoder: PersonEncoder, config: Config):
        self.base, self.encoder, self.config = base, encoder, config
        self.recordings: dict[Hashable, tuple[Callable[..., Any], list[Any]]] = {}
        self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tensors = tensors_of(batch)
        key = self._key(batch, tensors)
        if key not in self.recordings:
            if len(self.recordings) == MOST:
                raise TrainingError(
                    f"train.recorded is on, and the batches have more than {MOST} different sizes",
                    "set train.recorded to false, or give the pictures of the data set one size",
                )
            loss = recorded([self.encoder], partial(self._loss, batch), tensors, self.pool)
            self.recordings[key] = loss, self.encoder.kept()  # a recording reads these places in memory
        loss, values = self.recordings[key][0](*tensors)
        return loss, values.clone()

    def _loss(self, like: Batch, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        return measured_loss(self.base, self.encoder, with_tensors(like, tensors), self.config)

    def _key(self, batch: Batch, tensors: tuple[Tensor, ...]) -> Hashable:
        """All that the loss depends on, but for the numbers in the tensors."""

        def layout(chats: list[tuple[list[int], Chat]]) -> Hashable:
            return tuple((tuple(members), chat.grids) for members, chat in chats)

        sizes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        phase = self.config.train.at(batch.step)
        return phase, batch.domain, batch.parts, layout(batch.references), layout(batch.contrast), sizes


def tensors_of(batch: Batch) -> tuple[Tensor, ...]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    each_tensor(batch, note)
    return tuple(found)


def with_tensors(like: Batch, tensors: tuple[Tensor, ...]) -> Batch:
    """`like` with other tensors, in the order of `tensors_of`."""
    left = iter(tensors)
    return each_tensor(like, lambda _: next(left))

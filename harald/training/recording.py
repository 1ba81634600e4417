"""Steps as CUDA graphs: a batch's gradients are recorded once for every size of batch and launched as one."""

import logging
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.base.recording import Recording
from harald.config import Config
from harald.encoder.chat import Chat
from harald.encoder.model import PersonEncoder
from harald.training.batch import Batch, each_tensor
from harald.training.step import measured_gradients

log = logging.getLogger(__name__)

MOST = 64  # each holds memory of its own


class Recorder:
    """`measured_gradients`, recorded once for every size of batch. Which batch comes first changes no byte.

    The gradients are overwritten by the next call. pool: of memory, of recorders that never run at the same time.
    """

    def __init__(self, base: BaseModel, encoder: PersonEncoder, config: Config, pool: Any = None):
        self.base, self.encoder, self.config = base, encoder, config
        self.warned = False
        self.recordings: dict[Hashable, tuple[Callable[..., Any], list[Any]]] = {}
        self.pool = pool or new_pool()
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def __call__(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        tensors = tensors_of(batch)
        key = self._key(batch, tensors)
        if key not in self.recordings:
            if len(self.recordings) == MOST:
                self._warn(batch.step)
                del self.recordings[next(iter(self.recordings))]  # the one that was not used for the longest time
            try:
                recording = Recording(partial(self._gradients, batch), tensors, self.pool, self.stream)
            except RuntimeError:
                if not self.recordings:
                    self.pool = new_pool()  # one that nothing was recorded in cannot be used again
                raise
            self.recordings[key] = recording, self.encoder.kept()  # a recording reads these places in memory
        self.recordings[key] = self.recordings.pop(key)
        gradients, values = self.recordings[key][0](*tensors)
        return gradients, values.clone()

    def _warn(self, step: int) -> None:
        if self.warned:
            return
        self.warned, train = True, self.config.train.at(step)
        log.warning(
            "batches have more than %d different sizes, and each is recorded before it is computed, which takes "
            "longer than a step: give the pictures of the data set one size, and every state %d or more views of each "
            "domain (train.max_references + train.targets_per_state), or set train.recorded to false",
            MOST, train.max_references + train.targets_per_state,
        )  # fmt: skip

    def _gradients(self, like: Batch, *tensors: Tensor) -> tuple[list[Tensor], Tensor]:
        return measured_gradients(self.base, self.encoder, with_tensors(like, tensors), self.config)

    def _key(self, batch: Batch, tensors: tuple[Tensor, ...]) -> Hashable:
        """All that the loss depends on, but for the numbers in the tensors."""

        def layout(chats: list[tuple[list[int], Chat]]) -> Hashable:
            return tuple((tuple(members), chat.grids) for members, chat in chats)

        sizes = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        phase = self.config.train.at(batch.step)
        return phase, batch.domain, batch.parts, layout(batch.references), layout(batch.contrast), sizes


def new_pool() -> Any:
    """Of memory for recordings."""
    return torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None


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

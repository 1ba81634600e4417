"""Steps as CUDA graphs: a batch's gradients are recorded once for every size of batch and launched as one.

At small sizes a step is a few thousand small kernels; launching them one by one takes longer than running them. A
recording computes what the plain call computes, with the same kernels.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import Config
from harald.encoder.chat import Chat
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.training.batch import Batch, each_tensor
from harald.training.step import measured_gradients

MOST = 64  # each holds memory of its own
WARM_UPS = 2  # the first call fills what is kept between calls, the second shows that it stays there


class Recording:
    """function(*inputs) as a CUDA graph, for inputs with the shapes and types of `sample`, which stay as they are.

    What it returns is overwritten by the next call. pool: of memory, shared with recordings that never run at the same
    time. stream: a torch.cuda.Stream to record on.
    """

    def __init__(self, function: Callable[..., Any], sample: Sequence[Tensor], pool: Any, stream: Any):
        self.inputs = [tensor.clone() for tensor in sample]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*self.inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: the threads that load data go on meanwhile, and pin memory
        with torch.cuda.graph(self.graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Any:
        for place, tensor in zip(self.inputs, inputs, strict=True):
            place.copy_(tensor, non_blocking=True)
        self.graph.replay()
        return self.outputs


class Recorder:
    """`measured_gradients`, recorded once for every size of batch. Which batch comes first changes no byte.

    The gradients are overwritten by the next call.
    """

    def __init__(self, base: BaseModel, encoder: PersonEncoder, config: Config):
        self.base, self.encoder, self.config = base, encoder, config
        self.recordings: dict[Hashable, tuple[Callable[..., Any], list[Any]]] = {}
        self.pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None
        self.stream = torch.cuda.Stream() if torch.cuda.is_available() else None

    def __call__(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        tensors = tensors_of(batch)
        key = self._key(batch, tensors)
        if key not in self.recordings:
            if len(self.recordings) == MOST:
                train = self.config.train.at(batch.step)
                needed = train.max_references + train.targets_per_state
                raise TrainingError(
                    f"train.recorded is on, and the batches have more than {MOST} different sizes",
                    "set train.recorded to false, or give the pictures of the data set one size, and every state"
                    f" {needed} or more views of each domain (train.max_references + train.targets_per_state)",
                )
            recording = Recording(partial(self._gradients, batch), tensors, self.pool, self.stream)
            self.recordings[key] = recording, self.encoder.kept()  # a recording reads these places in memory
        gradients, values = self.recordings[key][0](*tensors)
        return gradients, values.clone()

    def _gradients(self, like: Batch, *tensors: Tensor) -> tuple[list[Tensor], Tensor]:
        return measured_gradients(self.base, self.encoder, with_tensors(like, tensors), self.config)

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

"""Several processes, each with a GPU of its own, that train one segment together. The engine is torchrun's."""

import logging
import os
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harald.errors import TrainingError


@dataclass(frozen=True)
class World:
    """The processes of a training: this one's number, and how many there are."""

    rank: int = 0
    size: int = 1

    def share(self, parts: int) -> range:
        """The parts of a batch that are this process's."""
        return range(self.rank, parts, self.size)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of every tensor; the same bytes in each of two processes."""
        if self.size > 1:
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            distributed.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in tensors])
            torch._foreach_copy_(list(tensors), [p.view_as(t) for p, t in zip(parts, tensors, strict=True)])

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()


def launch(gpus: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """function(world, *arguments) in `gpus` processes. Returns what the first one returns. Raises TrainingError."""
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=gpus,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    try:
        return elastic_launch(config, _enter)(function, *arguments)[0]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        said: Any = failure.message  # a dictionary, or text where a signal ended the process
        reason = said["message"] if isinstance(said, dict) else said
        raise TrainingError(f"process {rank} of {gpus} failed: {reason}", "its traceback stands above") from error


@record
def _enter(function: Callable[..., Any], *arguments: Any) -> Any:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    world, cuda = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])), torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        return function(world, *arguments)
    finally:
        distributed.destroy_process_group()

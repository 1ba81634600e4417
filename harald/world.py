"""Several processes, each with a GPU of its own, that train together, on one machine or several. The engine is
torchrun's (torch.distributed.elastic).
"""

import datetime
import hashlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from harald.errors import TrainingError
from harald.runtime import Cluster

PATIENCE = datetime.timedelta(hours=2)  # the others wait while the first one validates, draws and writes
ONE = Cluster()
PORT = 29500  # of the first of several machines


@dataclass(frozen=True)
class World:
    """The processes of a training: this one's number, and how many there are.

    talk: a group in which the hosts talk while their GPUs work.
    """

    rank: int = 0
    size: int = 1
    talk: Any = None

    def share(self, parts: int) -> range:
        """The parts of a batch that are this process's, one after another."""
        each = parts // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all processes in the place of every tensor: the same bytes everywhere, and the bytes that
        `Total` gives where one process has all parts (sizes are powers of two).
        """
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        parts = [torch.empty_like(flat) for _ in range(self.size)]
        distributed.all_gather(parts, flat)
        while len(parts) > 1:
            parts = [left + right for left, right in zip(parts[::2], parts[1::2], strict=True)]
        split = parts[0].split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(t) for part, t in zip(split, tensors, strict=True)])

    def say(self, number: int) -> int:
        """What the first process says, to all. No GPU waits."""
        if self.size == 1:
            return number
        said = torch.tensor([number])
        distributed.broadcast(said, 0, group=self.talk)
        return int(said)

    def hand_out(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process has in the place of every tensor."""
        for tensor in tensors if self.size > 1 else ():
            distributed.broadcast(tensor, 0)

    def expect_same(self, what: str, text: str) -> None:
        """Raises TrainingError unless all processes have the same text."""
        if self.size == 1:
            return
        own = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        seen = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(seen, own, group=self.talk)
        if odd := [rank for rank, digest in enumerate(seen) if not torch.equal(digest, seen[0])]:
            raise TrainingError(f"process {odd[0]} has another {what} than process 0", "they must see the same files")

    def meet(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()


ALONE = World()


class Total:
    """A sum of parts in the order of a binary tree: halves that other processes have added give the same bytes."""

    def __init__(self) -> None:
        self._sums: list[tuple[int, list[Tensor]]] = []  # (parts in it, its tensors), ever smaller ones

    def add(self, tensors: list[Tensor]) -> None:
        """The next part. The tensors are the total's from now on."""
        parts = 1
        while self._sums and self._sums[-1][0] == parts:
            count, before = self._sums.pop()
            torch._foreach_add_(before, tensors)
            parts, tensors = parts + count, before
        self._sums.append((parts, tensors))

    def tensors(self) -> list[Tensor]:
        """Of as many parts as a power of two."""
        ((_, tensors),) = self._sums
        return tensors


def launch(gpus: int, function: Callable[..., Any], *arguments: Any, cluster: Cluster = ONE) -> Any:
    """function(world, *arguments) in `gpus` processes of this machine, which others of the cluster join. Returns what
    this machine's first one returns. Raises TrainingError.
    """
    alone = len(cluster.addresses) == 1
    config = LaunchConfig(
        min_nodes=len(cluster.addresses),
        max_nodes=len(cluster.addresses),
        nproc_per_node=gpus,
        run_id=uuid.uuid4().hex if alone else "harald",
        rdzv_backend="c10d" if alone else "static",
        rdzv_endpoint="localhost:0" if alone else f"{cluster.addresses[0]}:{PORT}",
        rdzv_configs={} if alone else {"rank": cluster.host},
        max_restarts=0,
        start_method="forkserver",
    )
    if threading.current_thread() is not threading.main_thread():  # then signals are the caller's, as it should know
        logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.ERROR)
    multiprocessing.set_forkserver_preload([function.__module__])  # what all of them import is imported once
    try:
        return elastic_launch(config, _enter)(torch.get_num_threads(), function, *arguments)[gpus * cluster.host]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        said: Any = failure.message  # a dictionary, or text where a signal ended the process
        reason = said["message"] if isinstance(said, dict) else said
        total = gpus * len(cluster.addresses)
        raise TrainingError(f"process {rank} of {total} failed: {reason}", "its traceback stands above") from error


@record
def _enter(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the starter decides
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)  # sums on a CPU depend on it
    rank, size, cuda = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        return function(World(rank, size, distributed.new_group(backend="gloo", timeout=PATIENCE)), *arguments)
    finally:
        distributed.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    """A process whose starter was killed would wait for the others for hours."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)

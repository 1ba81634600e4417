"""Pictures of synthetic persons, rendered by other processes while the training runs."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harald.proving_ground.persons import ATTRIBUTES, rendered

ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

Truth = tuple[np.ndarray, int, tuple[tuple[str, str], ...]]  # labels, identity, prompts of one state


class Pictures:
    """N states of V views, in files that workers write and the trainer reads: the machine may have little /dev/shm.

    images: uint8 [N, V, S, S, 3]; detail: uint8 [N, V, S, S]; labels: int8 [N, V, A]; identity: int64 [N];
    prompts: for each state, for each view, (full text, state-free text). See persons.Rendered.
    """

    def __init__(self, folder: Path, seed: int, states: range, held_out: bool, views: int, side: int):
        self.folder, self.seed, self.states, self.held_out = folder, seed, states, held_out
        self.views, self.side = views, side
        folder.mkdir()
        self.images = _new_file(folder / "images.npy", (len(states), views, side, side, 3))
        self.detail = _new_file(folder / "detail.npy", (len(states), views, side, side))
        self.labels = np.zeros((len(states), views, len(ATTRIBUTES)), np.int8)
        self.identity = np.zeros(len(states), np.int64)
        self.prompts: list[tuple[tuple[str, str], ...]] = []
        self.futures: list[Future[Truth]] = []
        self._failed: list[Future[Truth]] = []
        self._copies: dict[str, Tensor] = {}
        self._copied: dict[str, int] = {}

    def submit(self, workers: ProcessPoolExecutor) -> None:
        for place, index in enumerate(self.states):
            task = workers.submit(_render, self.folder, place, self.seed, index, self.held_out, self.views, self.side)
            task.add_done_callback(self._note_failure)
            self.futures.append(task)

    def _note_failure(self, task: Future[Truth]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed.append(task)

    def wait(self, n: int) -> None:
        """Block until the first n states are there. A worker's exception is raised here, with its message."""
        wait(self.futures[len(self.prompts) : n], return_when=FIRST_EXCEPTION)
        if self._failed:
            self._failed[0].result()
        for place in range(len(self.prompts), n):
            self.labels[place], self.identity[place], prompts = self.futures[place].result()
            self.prompts.append(prompts)

    def on_device(self, name: str, n: int, device: torch.device) -> Tensor:
        """The first n states of 'images', 'detail', 'labels' or 'identity'; only what is new is copied."""
        self.wait(n)
        source: np.ndarray = getattr(self, name)
        if name not in self._copies:
            dtype = torch.from_numpy(source[:0]).dtype
            self._copies[name] = torch.empty(source.shape, dtype=dtype, device=device)
            self._copied[name] = 0
        done = self._copied[name]
        if done < n:
            self._copies[name][done:n] = torch.from_numpy(np.ascontiguousarray(source[done:n])).to(device)
            self._copied[name] = n
        return self._copies[name][:n]


class Pool(Pictures):
    """States of held-in persons, and `held_out`: pictures of persons that no training sees.

    The workers start at once, in the order of the states, and go on while the trainer trains; held-out states come
    last. What they write is a pure function of the numbers, so the number of workers changes nothing.
    """

    def __init__(self, seed: int, states: range, held_out: int, views: int, side: int, workers: int):
        self._home = tempfile.TemporaryDirectory(prefix="harald-pool-")
        home = Path(self._home.name)
        super().__init__(home / "train", seed, states, False, views, side)
        self.validation = Pictures(home / "held_out", seed, range(held_out), True, views, side)
        self._workers = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)
        with _environment(ONE_THREAD):  # inherited by the processes, which start with the first tasks
            self.submit(self._workers)
            self.validation.submit(self._workers)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._home.cleanup()

    def wait_held_out(self) -> Pictures:
        """The complete held-out set."""
        self.validation.wait(len(self.validation.states))
        return self.validation


def _render(folder: Path, place: int, seed: int, index: int, held_out: bool, views: int, side: int) -> Truth:
    state = rendered(seed, index, held_out=held_out, views=views, side=side)
    np.lib.format.open_memmap(folder / "images.npy", mode="r+")[place] = state.images
    np.lib.format.open_memmap(folder / "detail.npy", mode="r+")[place] = state.detail
    return state.labels, state.identity, state.prompts


def _one_thread() -> None:
    torch.set_num_threads(1)


def _new_file(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

"""Compiled kernels outlive their container: one file for each job, kind of machine and set of versions.

PyTorch reads the file with pickle, so it lies with the output, which only our own jobs write (see SECURITY.md).
"""

import hashlib
import logging
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch._dynamo.utils import counters

from harald import runs
from harald.base.compiled import SAME_TWICE

log = logging.getLogger(__name__)


def kernel_file(folder: Path, job: str) -> Path:
    """Where a job's kernels for this machine and these versions lie."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    text = f"{torch.__version__} {torch.version.cuda} {gpu} {platform.python_version()} {sorted(SAME_TWICE.items())}"
    return folder / f"{job}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.bin"


@contextmanager
def kept_kernels(folder: Path, job: str, writes: bool = True) -> Iterator["Kernels"]:
    """Inside, what was compiled before need not be compiled again; at the end what is new is written.

    writes: whether this process does (the first of several).
    """
    kernels = Kernels(kernel_file(folder, job), writes)
    kernels.load()
    yield kernels
    kernels.save()


class Kernels:
    def __init__(self, file: Path, writes: bool):
        self.file, self.writes = file, writes
        self.known = _compiled()

    def load(self) -> None:
        if self.file.exists():
            torch.compiler.load_cache_artifacts(self.file.read_bytes())
            log.info("compiled kernels of an earlier run: %.1f MiB", self.file.stat().st_size / 2**20)

    def save(self) -> None:
        """Write the file if something was compiled since the last time."""
        if not self.writes or _compiled() == self.known:
            return
        self.known, saved = _compiled(), torch.compiler.save_cache_artifacts()
        if saved is not None:
            runs.write_bytes(self.file, saved[0])
            log.info("compiled kernels kept: %.1f MiB", len(saved[0]) / 2**20)


def _compiled() -> int:
    """Graphs that no cache held, in this process."""
    return counters["inductor"]["fxgraph_cache_miss"]

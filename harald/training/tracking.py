"""Where numbers go: metrics.jsonl is the truth (and deterministic), trackio a copy to look at, the log a summary."""

import contextlib
import io
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch

from harald.runs import write_text

log = logging.getLogger(__name__)


class Metrics:
    """metrics.jsonl: one line a step, without times, so that two runs have the same bytes."""

    def __init__(self, file: Path, done: int):
        """Lines of steps after `done` belong to work that a crash has lost: they are dropped."""
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        kept = [line for line in lines if _step(line) is not None and _step(line) <= done]  # type: ignore[operator]
        write_text(file, "".join(line + "\n" for line in kept))

    def write(self, row: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]


class Tracker:
    """trackio in jsonl mode: append-only files, safe on a network volume. Nothing leaves the machine."""

    def __init__(self, folder: Path, run: str, config: dict[str, Any]):
        os.environ["TRACKIO_DIR"] = str(folder)  # read when trackio is imported
        os.environ["TRACKIO_STORAGE_MODE"] = "jsonl"
        import trackio

        trackio.utils.TRACKIO_DIR = folder  # a second run in this process has a folder of its own too
        with contextlib.redirect_stdout(io.StringIO()):
            self.run = trackio.init(
                "harald", name=run, config=config, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
            )

    def log(self, row: dict[str, Any]) -> None:
        self.run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()


class Progress:
    """A log line every few seconds: step, loss, speed, time left, memory."""

    def __init__(self, start: int, total: int, every: float = 10.0):
        self.start, self.total, self.every = start, total, every
        self.began = self.last = time.monotonic()
        self.samples = 0

    def update(self, step: int, loss: float, samples: int) -> None:
        self.samples += samples
        now = time.monotonic()
        if now - self.last < self.every and step != self.total:
            return
        self.last = now
        seconds = now - self.began
        left = seconds / (step - self.start) * (self.total - step)
        log.info(
            "step %d/%d  loss %.4f  %.1f samples/s  %s left  %s",
            step, self.total, loss, self.samples / seconds, _clock(left), _memory(),
        )  # fmt: skip


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that a kill has cut


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def _memory() -> str:
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    import resource

    return f"RAM {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"

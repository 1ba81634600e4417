"""Where numbers go: metrics.jsonl is the truth (and deterministic), trackio a copy to look at."""

import contextlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harald.runs import write_bytes
from harald.training.disk import persist


class Metrics:
    """metrics.jsonl: one line a step, without times, so that two runs have the same bytes."""

    def __init__(self, file: Path, checkpoint: Path | None, done: int):
        """The checkpoint that the run goes on from holds the lines up to it: whatever a crash, a full disk or somebody
        has made of the file since is mended. A checkpoint without them is of an older version: lines that are cut, or
        of steps after `done`, are dropped.
        """
        self.file = file
        copy = checkpoint / file.name if checkpoint else None
        if copy and copy.exists():
            self.content = copy.read_bytes()
        else:
            lines = file.read_bytes().splitlines() if checkpoint and file.exists() else []
            self.content = b"".join(line + b"\n" for line in lines if (_step(line) or done + 1) <= done)
        if not file.exists() or file.read_bytes() != self.content:
            self._save(self._rewrite)

    def write(self, row: dict[str, Any]) -> None:
        line, before = json.dumps(row).encode() + b"\n", len(self.content)
        self.content += line

        def append() -> None:
            with self.file.open("r+b") as file:  # a file that has vanished is not begun anew: its disk is away
                if whole := file.seek(0, io.SEEK_END) == before:
                    file.write(line)
            if not whole:  # half of it is there from the try before
                self._rewrite()

        self._save(append)

    def _save(self, attempt: Callable[[], None]) -> None:
        persist(attempt, self.file.name, self.file.parent, len(self.content))

    def _rewrite(self) -> None:
        write_bytes(self.file, self.content)


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


def _step(line: bytes) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # a line that a kill has cut

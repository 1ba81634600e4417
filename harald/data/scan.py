"""Several base folders -> their states, one after the other, with every problem found on the way.

A picture is judged by its first and last bytes, a state is handed on as soon as it is read, and nothing of it is kept:
memory does not grow with the data set (but for the names of the folders).
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from harald.config import Data
from harald.data.findings import Problem
from harald.data.folder import FolderScan, Found
from harald.data.people import PEOPLE

STATE_ID = re.compile(r"seed_([0-9]+)")
READERS = 8  # threads: they wait for the network behind a volume; a local disk gains nothing by them
AHEAD = 64  # states read before they are asked for


def scan(datasets: dict[int, Path], data: Data) -> Iterator[Found]:
    """Found by Found: a state in use or not, with its problems; order: number of the base folder, number of the state.

    A problem that concerns no state (a base folder, a wrong folder name) comes in a Found without a state. A state_id
    that an earlier base folder has is reported and left out. Never raises for what it finds.
    """
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[Found] | Found] = deque()
        try:
            for item in _places(datasets, data):
                waiting.append(item if isinstance(item, Found) else readers.submit(item.scan))
                if len(waiting) > AHEAD:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            readers.shutdown(cancel_futures=True)


def _result(item: "Future[Found] | Found") -> Found:
    return item if isinstance(item, Found) else item.result()


def number_of(state_id: str) -> int:
    """19456895 for 'seed_19456895'; the order of states within a base folder."""
    return int(state_id.removeprefix("seed_"))


def _places(datasets: dict[int, Path], data: Data) -> Iterator[FolderScan | Found]:
    owner: dict[str, int] = {}
    for base, path in sorted(datasets.items()):
        try:
            root = os.path.realpath(path, strict=True)
            with os.scandir(root) as entries:
                folders = {entry.name: entry.is_dir() or entry.is_symlink() for entry in entries}
        except OSError as error:
            kind = "base_missing" if isinstance(error, FileNotFoundError | NotADirectoryError) else "unreadable"
            yield _problem(kind, base, detail=f"{path}: {error.strerror}")
            continue
        states = {name for name, is_folder in folders.items() if is_folder and STATE_ID.fullmatch(name)}
        for name in sorted(folders.keys() - states):
            if name == PEOPLE:
                continue
            if folders[name]:
                yield _problem("wrong_folder_name", base, file=name, detail="not seed_<number>")
            else:
                yield _problem("stray_file", base, file=name, detail="a file next to the states' folders")
        if not states:
            yield _problem("base_empty", base, detail=f"no seed_<number> folder in {path}")
        for name in sorted(states, key=lambda name: (number_of(name), name)):
            if name in owner:
                first = datasets[owner[name]]
                detail = f"in {first / name} (kept) and in {path / name} (left out)"
                yield Found(None, (Problem("duplicate_state", base, name, detail=detail),))
            else:
                owner[name] = base
                yield FolderScan(base, root, name, data)


def _problem(kind: str, base: int, file: str = "", detail: str = "") -> Found:
    return Found(None, (Problem(kind, base, file=file, detail=detail),))

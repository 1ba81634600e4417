"""Two starts of one run, and Ctrl-C, with real processes. For SIGKILL at any moment see tests/test_soak.py."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

from harald.runs import LEASE, STATUS
from tests.processes import CONTEXT
from tests.states import write_dataset

FLAGS = ["--preset", "tiny", "--checkpoint-every", "3", "--overrides", '{"train.sample_every": 6}']


def run_job(root: str, name: str, steps: str) -> None:
    """In a process of its own: the command that a user types."""
    import os

    import torch

    from harald.cli import main

    os.environ["HARALD_ROOT"] = root
    torch.set_num_threads(1)
    main(["train", "--run-name", name, "--steps", steps, *FLAGS])


def start(root: Path, name: str, steps: str) -> multiprocessing.Process:
    process = CONTEXT.Process(target=run_job, args=(str(root), name, steps))
    process.start()
    return process


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.01)


def test_second_start_is_refused_and_ctrl_c_ends_the_first_with_a_checkpoint(tmp_path):
    runtime = write_dataset(tmp_path, states=3)
    folder = runtime.output / "train" / "one"
    first = start(tmp_path, "one", "10000")
    wait_for(folder / "metrics.jsonl")
    second = start(tmp_path, "one", "10000")
    second.join(60)
    assert second.exitcode == 1 and first.is_alive()
    assert json.loads((folder / LEASE).read_text())["owner"]["pid"] == first.pid
    os.kill(first.pid, signal.SIGINT)
    first.join(60)
    assert first.exitcode == 0
    said = json.loads((folder / STATUS).read_text())
    assert said["state"] == "stopped" and said["done"] > 0 and not (folder / LEASE).exists()
    assert (folder / "checkpoints" / f"step_{said['done']:08d}").exists()

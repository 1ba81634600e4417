"""A run killed with SIGKILL at any moment and started again gives the bytes of a run that never stopped."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from harald.runs import LEASE, STATUS
from tests.states import write_dataset
from tests.training.test_loop import files

FLAGS = ["--preset", "tiny", "--checkpoint-every", "3", "--overrides", '{"train.sample_every": 6}']


def run_job(root: str, name: str, steps: str) -> None:
    """In a process of its own: the command that a user types."""
    import os

    import torch

    from harald.cli import main

    os.environ["HARALD_ROOT"] = root
    torch.set_num_threads(1)
    main(["train", "--run-name", name, "--steps", steps, *FLAGS])


def start(root: Path, name: str, steps: str = "12") -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harald.jobs.train", "harald.cli"])  # imports once, not in every process
    process = context.Process(target=run_job, args=(str(root), name, steps))
    process.start()
    return process


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_bytes(tmp_path):
    runtime = write_dataset(tmp_path, states=6)
    whole = start(tmp_path, "whole")
    whole.join(120)
    assert whole.exitcode == 0
    folder, draw, kills = runtime.output / "train" / "killed", random.Random(0), 0
    metrics = folder / "metrics.jsonl"

    def lines() -> int:
        return metrics.read_text().count("\n") if metrics.exists() else 0

    for _ in range(6):
        process, wanted = start(tmp_path, "killed"), draw.randint(1, 4)
        seen = lines()
        while process.is_alive() and lines() - seen < wanted:
            seen = min(seen, lines())  # a resumed run first drops the lines beyond its checkpoint
            time.sleep(0.002)
        time.sleep(draw.random() * 0.2)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join(30)
    last = start(tmp_path, "killed")
    last.join(120)
    assert last.exitcode == 0
    assert kills >= 3
    assert files(folder) == files(runtime.output / "train" / "whole")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
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

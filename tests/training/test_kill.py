"""A run killed with SIGKILL at any moment and started again gives the bytes of a run that never stopped."""

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from tests.states import write_dataset
from tests.training.test_loop import files

FLAGS = ["--preset", "tiny", "--steps", "12", "--checkpoint-every", "3", "--overrides", '{"train.sample_every": 6}']


def run_job(root: str, name: str) -> None:
    """In a process of its own: the command that a user types."""
    import os

    import torch

    from harald.cli import main

    os.environ["HARALD_ROOT"] = root
    torch.set_num_threads(1)
    main(["train", "--run-name", name, *FLAGS])


def start(root: Path, name: str) -> multiprocessing.Process:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harald.jobs.train", "harald.cli"])  # imports once, not in every process
    process = context.Process(target=run_job, args=(str(root), name))
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

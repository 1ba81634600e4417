"""Workers killed with SIGKILL at random moments, two jobs at a time: the cache ends as that of an undisturbed job."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from harald.data.index import states_for
from harald.data.latents import read_index
from harald.data.seen import picture_name
from harald.jobs import prepare
from harald.runtime import Runtime
from harald.settings import resolve
from tests import models
from tests.processes import CONTEXT
from tests.states import write_dataset

OVERRIDES = '{"prepare.pictures_per_shard": 2}'


def run_job(root: str, name: str) -> None:
    """In a process of its own: the command that a user types."""
    import os

    import torch

    from harald.cli import main

    os.environ["HARALD_ROOT"] = root
    torch.set_num_threads(1)
    main(["prepare", "--preset", "tiny", "--run-name", name, "--overrides", OVERRIDES])


def start(root: Path, name: str):
    process = CONTEXT.Process(target=run_job, args=(str(root), name))
    process.start()
    return process


def shards(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "output" / "latents").glob("*/*.safetensors")}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Twelve pictures and the models, nothing prepared."""
    root = tmp_path_factory.mktemp("source")
    write_dataset(root, states=3, views=2)
    shutil.copytree(models.cache(), root / "hf_cache", symlinks=True)
    return root


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed") / "root"
    shutil.copytree(source, root, symlinks=True)
    assert prepare.run(Runtime.local(root), resolve("tiny", overrides=OVERRIDES), "whole")["shards"] == 6
    return shards(root)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_jobs_end_with_the_shards_of_an_undisturbed_one(source, undisturbed, tmp_path, seed):
    root, draw = tmp_path / "root", random.Random(seed)
    shutil.copytree(source, root, symlinks=True)
    jobs, wanted = [start(root, name) for name in ("one", "two")], draw.randint(1, 4)
    while len(shards(root)) < wanted and any(job.is_alive() for job in jobs):
        time.sleep(0.002)
    time.sleep(draw.random() * 0.1)
    for job in jobs:
        job.kill()
        job.join(30)
    assert -signal.SIGKILL in {job.exitcode for job in jobs}
    assert shards(root).items() <= undisturbed.items()
    jobs = [start(root, name) for name in ("one", "two")]  # side by side to the end
    for job in jobs:
        job.join(120)
        assert job.exitcode == 0
    assert shards(root) == undisturbed
    runtime = Runtime.local(root)
    names = {picture_name(v.image) for s in states_for(runtime, resolve("tiny")) for v in s.views}
    for run in ("one", "two"):
        entries = read_index(runtime.output / "prepare" / run)[1]
        assert entries.keys() == names and {entry.shard for entry in entries.values()} == undisturbed.keys()

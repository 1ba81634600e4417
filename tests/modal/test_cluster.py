"""Training on several machines (@modal.clustered) and on several GPUs of one."""

import sys

import pytest

from harald import config
from harald.config import DATASETS
from harald.jobs import train
from harald.modal_runner import asked
from harald.runs import sha256
from harald.runtime import Runtime
from harald.settings import resolve
from tests import models
from tests.modal.conftest import Cloud, write_states

pytestmark = [pytest.mark.modal, pytest.mark.slow]

PARTS = '{"train.parts": 2}'


def test_two_hosts_write_the_bytes_of_one_process(cloud: Cloud, tmp_path):
    base = cloud.state / "volumes" / DATASETS[1]
    write_states(base, first=100, training=4, validation=1)
    run = cloud.run("train", "--preset", "tiny", "--run-name", "two", "--steps", "3", "--overrides", PARTS, "--hosts=2")
    assert run.code == 0, run.output
    assert (run.app["functions"]["train"]["cluster"], run.app["functions"]["evaluate"]["cluster"]) == (2, 0)
    assert len(run.containers("train")) == 2 and run.output.count("checkpoint at step 3") == 1
    here = Runtime(tmp_path, {1: base}, tmp_path / "output", models.cache())
    train.run(here, resolve("tiny", overrides=PARTS), "one", steps=3)
    one, two = (
        {path.name: sha256(path) for path in (output / "checkpoints/step_00000003").iterdir()}
        for output in (here.output / "train/one", cloud.output / "train/two")
    )
    assert one == two and len(one) == 5


def test_flags_that_decide_about_machines_are_read_before_modal_reads_them(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["modal", "run", "-m", "harald.modal_runner::train", "--gpus", "8", "--hosts=2"])
    assert (asked("gpus"), asked("hosts"), asked("steps")) == (8, 2, 1)
    assert config.on_gpus(config.TRAIN_JOB, asked("gpus"))["gpu"] == "H200:8"
    one, eight = (config.price(config.on_gpus(config.TRAIN_JOB, gpus)) for gpus in (1, 8))
    assert 4 < eight / one <= 8

"""Several processes that train one run: the bytes of one process, also where their number changes on the way."""

import dataclasses
import json

import pytest
import torch

from harald import config
from harald.errors import ConfigError, TrainingError
from harald.jobs import train as job
from harald.runtime import Cluster, Runtime
from harald.settings import resolve
from harald.training.checkpoint import list_checkpoints
from harald.world import Total
from tests.states import write_dataset
from tests.training.test_loop import StopsAt, files, small


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Runtime:
    return write_dataset(tmp_path_factory.mktemp("root"), states=6)


@pytest.fixture(scope="module")
def alone(runtime) -> dict[str, str]:
    job.run(runtime, small(parts=2), "alone")
    return files(runtime.output / "train" / "alone")


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one_and_one_goes_on_where_two_ended(runtime, alone):
    first = job.run(runtime, small(parts=2, steps=4), "shared", gpus=2)
    assert (first["from_step"], first["to_step"]) == (0, 4)
    assert job.run(runtime, small(parts=2), "shared")["from_step"] == 4
    ours = files(runtime.output / "train" / "shared")
    ours.pop("samples/step_00000004.png")  # the first start's last step
    assert ours == alone


@pytest.mark.slow
def test_two_go_on_where_one_was_stopped(runtime, alone):
    stopped = job.run(dataclasses.replace(runtime, session=StopsAt(2)), small(parts=2), "grown")
    assert (stopped["state"], stopped["to_step"]) == ("stopped", 3)
    assert job.run(runtime, small(parts=2), "grown", gpus=2)["from_step"] == 3
    assert files(runtime.output / "train" / "grown") == alone


@pytest.mark.slow
def test_stop_reaches_all_processes(runtime, alone):
    stopped = job.run(dataclasses.replace(runtime, session=StopsAt(2)), small(parts=2), "both-stopped", gpus=2)
    assert (stopped["state"], stopped["to_step"]) == ("stopped", 3)
    folder = runtime.output / "train" / "both-stopped"
    assert [path.name for path in list_checkpoints(folder / "checkpoints")] == ["step_00000002", "step_00000003"]
    job.run(runtime, small(parts=2), "both-stopped")
    assert files(folder) == alone


def test_parts_change_the_loss_by_rounding_alone(runtime, alone):
    job.run(runtime, small(), "whole")
    losses = []
    for name in ("whole", "alone"):
        lines = (runtime.output / "train" / name / "metrics.jsonl").read_text().splitlines()
        losses.append(torch.tensor([json.loads(line)["loss"] for line in lines], dtype=torch.float64))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
    assert not torch.equal(*losses)


def test_total_adds_as_several_processes_would():
    parts = [torch.randn(1000, generator=torch.Generator().manual_seed(n)) * 10.0**n for n in range(8)]
    total = Total()
    for part in parts:
        total.add([part.clone()])
    pairs = [left + right for left, right in zip(parts[::2], parts[1::2], strict=True)]
    halves = [left + right for left, right in zip(pairs[::2], pairs[1::2], strict=True)]
    assert torch.equal(total.tensors()[0], halves[0] + halves[1])
    assert not torch.equal(total.tensors()[0], torch.stack(parts).sum(0))


@pytest.mark.parametrize(
    ("gpus", "hosts", "parts", "told"),
    [
        (0, 1, 1, "--gpus is 0, --hosts 1"),
        (2, 1, 1, r'(?s)train.parts is 1, which 2 processes .* --overrides \'{"train.parts": 2}\''),
        (3, 1, 2, "train.parts is 2, which 3 processes"),
        (1, 2, 2, "--hosts is 2, and this call has 1"),
    ],
)
def test_numbers_of_processes_that_cannot_share_a_batch_are_refused_before_anything_is_loaded(gpus, hosts, parts, told):
    with pytest.raises(TrainingError, match=told):
        job.check_processes(small(parts=parts), Cluster(), gpus, hosts)


@pytest.mark.parametrize(("parts", "states"), [(3, 6), (0, 8), (4, 6)])
def test_parts_are_powers_of_two_that_share_the_states_equally(parts, states):
    with pytest.raises(ConfigError, match=f"train.parts is {parts} of train.states_per_batch {states}"):
        resolve("tiny", overrides=f'{{"train.parts": {parts}, "train.states_per_batch": {states}}}')


def test_full_preset_can_be_shared_by_four():
    job.check_processes(config.full(), Cluster(), 4, 1)

"""Training in several processes. This module imports little: every process imports it."""

import pytest
import torch
from torch import nn

from harald.errors import TrainingError
from harald.proving_ground.pretraining.segment import Plan, train
from harald.world import ALONE, World, launch


def trained(world: World) -> list[float]:
    """A small training, in each of the world's processes."""
    torch.manual_seed(0)
    model, samples, rows = nn.Linear(3, 1), torch.randn(12, 4, 3), []
    train(
        [model], lambda part: {"loss": model(samples[part]).square().mean()},
        Plan(steps=6, learning_rate=0.1, parts=2), rows.append, world,
    )  # fmt: skip
    return [*model.weight.flatten().tolist(), rows[-1]["loss"], rows[-1]["grad_norm"]]


def broken(world: World) -> None:
    world.meet()
    if world.rank == 1:
        raise ValueError("out of apples")


def test_two_processes_that_share_the_parts_give_the_bytes_of_one() -> None:
    assert launch(2, trained) == trained(ALONE)


def test_process_that_fails_ends_all_with_its_reason() -> None:
    with pytest.raises(TrainingError, match=r"process 1 of 2 failed: .*out of apples"):
        launch(2, broken)

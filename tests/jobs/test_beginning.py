"""train.init_from and train.stages: one stage of a training, from the weights of another run."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harald import config, hub, runs
from harald.encoder.model import WEIGHTS
from harald.errors import ConfigError, TrainingError
from harald.jobs import export_encoder, train, verify
from harald.jobs.loading import training_of
from harald.training.checkpoint import list_checkpoints
from tests.states import write_dataset
from tests.training.test_loop import small


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A data set and a run of two steps."""
    made = write_dataset(tmp_path_factory.mktemp("root"), states=4)
    train.run(made, quick(), "first")
    return made


def weights(runtime, run: str, step: int) -> dict:
    return load_file(runtime.output / f"train/{run}/checkpoints/step_{step:08d}" / WEIGHTS)


def quick(**changes):
    """Two steps, and grids of one scene in two steps."""
    c = small(**{"steps": 2, "sample_every": 9, **changes})
    poc = dataclasses.replace(c.poc, scenes=c.poc.scenes[:1])
    return dataclasses.replace(c, poc=poc, generate=dataclasses.replace(c.generate, steps=2))


def second(**changes):
    """A rate so small that a step changes nothing that the test's tolerance sees."""
    return quick(**{"init_from": "first", "learning_rate": 1e-9, "weight_decay": 0.0, **changes})


@pytest.fixture(scope="module")
def started(runtime):
    train.run(runtime, second(), "second")
    return runtime.output / "train/second"


def test_weights_begin_as_the_other_runs_and_the_run_says_which(runtime, started):
    before, after = weights(runtime, "first", 2), weights(runtime, "second", 2)
    assert max((before[name] - after[name]).abs().max() for name in before) < 1e-6
    moved = [tensor.abs().max() for name, tensor in before.items() if "lora_B" in name]
    assert max(moved) > 1e-4, "they are 0 where nothing was trained"
    source = runtime.output / "train/first/checkpoints/step_00000002"
    inputs = json.loads((started / runs.INPUTS).read_text())
    known = {"checkpoint": "first/step_00000002", "sha256": runs.sha256(source / WEIGHTS), "steps": 2}
    assert inputs == {"init_from": known}
    repository = export_encoder.run(runtime, config.tiny(), "card", train_run="second")["repository"]
    card = (Path(repository) / "README.md").read_text()
    assert "began with the weights of\n`first/step_00000002`" in card and "| all | 2 |" in card, "its own steps alone"


def test_weights_may_begin_as_those_of_a_repository_and_steps_add_up(runtime, started):
    repository = export_encoder.run(runtime, config.tiny(), "out", train_run="second")["repository"]
    hub.install(runtime.hf_cache, "me/second", Path(repository))
    named = second(init_from="models.trained")
    with pytest.raises(ConfigError, match="and the configuration has none"):
        train.run(runtime, named, "third")
    named = dataclasses.replace(named, models=dataclasses.replace(named.models, trained=config.ModelRef("me/second")))
    train.run(runtime, named, "third")
    before, after = load_file(Path(repository) / WEIGHTS), weights(runtime, "third", 2)
    assert max((before[name].float() - after[name]).abs().max() for name in before) < 1e-6
    assert training_of(runtime.hf_cache, runtime.output / "train/third").step == 6
    assert json.loads((runtime.output / "train/third" / runs.INPUTS).read_text())["init_from"]["steps"] == 4


def test_run_that_began_elsewhere_is_repeated_to_the_same_bytes(runtime, started):
    assert verify.run(runtime, config.tiny(), "verified", train_run="second", steps=1)["same_bytes"]


def test_run_goes_on_though_the_other_one_is_gone_but_does_not_begin_again(runtime, started):
    folder, source = runtime.output / "train/resumed", runtime.output / "train/first/checkpoints"
    shutil.copytree(started, folder)
    aside = source.rename(source.with_name("aside"))
    try:
        assert train.run(runtime, second(steps=3), "resumed")["from_step"] == 2
        for checkpoint in list_checkpoints(folder / "checkpoints"):
            (checkpoint / WEIGHTS).write_bytes(b"damaged")
        with pytest.raises(TrainingError, match=r"first/checkpoints/step_00000002.* is gone or has changed"):
            train.run(runtime, second(steps=3), "resumed")
    finally:
        aside.rename(source)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"injection": config.Injection("input")}, "injection.point 'output' -> 'input'"),
        ({"encoder": dataclasses.replace(config.tiny().encoder, lora_alpha=8)}, "encoder.lora_alpha 4 -> 8"),
        ({"train": quick(init_from="nobody").train}, "there is no run 'nobody'"),
    ],
)
def test_weights_that_mean_something_else_are_refused_before_a_folder_is_made(runtime, change, said):
    with pytest.raises(ConfigError, match=said):
        train.run(runtime, dataclasses.replace(second(), **change), "refused")
    assert not (runtime.output / "train/refused").exists()

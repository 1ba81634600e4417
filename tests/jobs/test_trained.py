"""An encoder that is a repository: models.trained, what jobs use where no training run is named."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from harald import hub, settings
from harald.config import Injection, ModelRef
from harald.errors import ModelError
from harald.injection.person_file import load_person
from harald.jobs import doctor, injection_poc, predict_tokens, train
from tests.states import write_dataset

REPO = "me/my-encoder"


def tiny(trained: ModelRef | None = None):
    config = settings.resolve("tiny")
    steps = dataclasses.replace(config.train, steps=1, sample_every=9, checkpoint_every=1)
    return dataclasses.replace(config, train=steps, models=dataclasses.replace(config.models, trained=trained))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A data set, two training runs, and the first one's encoder as a repository of the cache."""
    made = write_dataset(tmp_path_factory.mktemp("root"), states=4)
    train.run(made, tiny(), "first")
    train.run(made, dataclasses.replace(tiny(), seed=1), "second")
    (checkpoint,) = (made.output / "train/first/checkpoints").glob("step_*")
    folder = tmp_path_factory.mktemp("repository")
    for file in checkpoint.glob("encoder.*"):
        shutil.copy(file, folder)
    hub.install(made.hf_cache, REPO, folder)
    return made


def tokens(runtime, config, name, **flags):
    state = next((runtime.root / "dataset/1").glob("seed_*")).name
    result = predict_tokens.run(runtime, config, name, state_id=state, **flags)
    return load_person(runtime.output / "predict_tokens" / name / "person.safetensors"), result["encoder"]


def test_repository_gives_the_tokens_of_the_run_that_it_came_from(runtime):
    of_run, name = tokens(runtime, tiny(), "a", train_run="first")
    of_repository, repository = tokens(runtime, tiny(ModelRef(REPO)), "b")
    assert torch.equal(of_run.tokens, of_repository.tokens)
    assert name.startswith("first/step_") and repository.startswith(f"{REPO}@")


def test_named_run_comes_before_the_repository_and_the_newest_run_after_it(runtime):
    assert tokens(runtime, tiny(ModelRef(REPO)), "c", train_run="second")[1].startswith("second/")
    assert tokens(runtime, tiny(), "d")[1].startswith("second/")


def test_repository_that_is_not_there_is_an_error_before_anything_is_written(runtime):
    missing = ModelRef("me/none")
    with pytest.raises(ModelError, match=r"me/none .* is not in the cache"):
        tokens(runtime, tiny(missing), "e")
    assert not (runtime.output / "predict_tokens/e").exists()
    assert doctor.CHECKS["trained encoder"](runtime, tiny(missing))[0] == "missing"
    assert doctor.CHECKS["trained encoder"](runtime, tiny(ModelRef(REPO)))[0] == "ok"


def test_encoder_of_other_sizes_and_point_than_the_presets_is_used_as_it_is(runtime):
    config = tiny(ModelRef(REPO))
    config = dataclasses.replace(
        config,
        injection=Injection("input"),
        encoder=dataclasses.replace(config.encoder, groups=(("face", 2), ("hair", 3))),
        poc=dataclasses.replace(config.poc, steps=1, scenes=config.poc.scenes[:1]),
        generate=dataclasses.replace(config.generate, steps=2),
    )
    folder = Path(injection_poc.run(runtime, config, "poc")["report"]).parent
    persons = {file.stem: load_person(file) for file in folder.glob("*.safetensors")}
    one_pass = persons.pop("encoder__one_pass")
    alike = dataclasses.replace(config, injection=Injection("output"), encoder=tiny().encoder)
    losses = [injection_poc.run(runtime, c, f"poc_{c is alike}")["held_out_loss"] for c in (config, alike)]
    assert len({each["encoder, one pass"] for each in losses}) == 1, "as where the preset is the encoder's own"
    assert {person.groups for person in persons.values()} == {config.encoder.groups}
    assert (one_pass.groups, one_pass.point, len(one_pass.tokens)) == (tiny().encoder.groups, "output", 16)

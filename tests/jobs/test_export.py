"""An encoder leaves its training run as a repository that says how it was made."""

import dataclasses
import json

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from harald import hub, settings
from harald.config import ModelRef, Phase
from harald.errors import ConfigError
from harald.injection.person_file import load_person
from harald.jobs import export_encoder, predict_tokens, train
from harald.jobs.loading import Training, as_trained, trained_encoder, training_of
from harald.web.consent import CONSENT
from tests.states import write_dataset


def tiny():
    config = settings.resolve("tiny")
    stages = (Phase("first", 2, teacher_weight=0.0), Phase("second", 5, rates=(0.01, 0.01)))
    steps = dataclasses.replace(config.train, steps=3, phases=stages, sample_every=9, checkpoint_every=1)
    return dataclasses.replace(config, train=steps)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    made = write_dataset(tmp_path_factory.mktemp("root"), states=4)
    train.run(made, tiny(), "first")
    return made


@pytest.fixture(scope="module")
def repository(runtime):
    result = export_encoder.run(runtime, tiny(), "out")
    assert result["checkpoint"] == "first/step_00000003"
    return runtime.output / "export_encoder/out/repository"


def test_exported_encoder_gives_the_tokens_of_its_run_up_to_bfloat16(runtime, repository):
    hub.install(runtime.hf_cache, "me/exported", repository)
    config = tiny()
    named = dataclasses.replace(config, models=dataclasses.replace(config.models, trained=ModelRef("me/exported")))
    state = next((runtime.root / "dataset/1").glob("seed_*")).name
    predict_tokens.run(runtime, config, "of_run", state_id=state)
    predict_tokens.run(runtime, named, "of_repository", state_id=state)
    ours, theirs = (
        load_person(runtime.output / f"predict_tokens/{name}/person.safetensors").tokens
        for name in ("of_run", "of_repository")
    )
    assert 0 < (ours - theirs).abs().max() < 0.03 * ours.abs().max()


def test_repository_says_what_a_measurement_must_know_as_the_run_does(runtime, repository):
    hub.install(runtime.hf_cache, "me/taught", repository)
    of_run, of_repository = (
        training_of(runtime.hf_cache, source) for source in (runtime.output / "train/first", ModelRef("me/taught"))
    )
    assert of_run == Training(3, "same_state", "person", tiny().data)
    assert of_repository == Training(3, "same_state", "person"), "whose data set is at hand, nobody knows"
    encoder, _ = trained_encoder(runtime.hf_cache, tiny(), ModelRef("me/taught"))
    other = settings.resolve("tiny", overrides='{"data.validation_share": 0.5, "injection.class_word": "woman"}')
    assert as_trained(other, encoder, of_run).data == tiny().data
    judged = as_trained(other, encoder, of_repository)
    assert (judged.data, judged.injection.class_word) == (other.data, "person")
    elsewhere = dataclasses.replace(other, models=dataclasses.replace(other.models, base=ModelRef("another/base")))
    with pytest.raises(ConfigError, match=r"for 'harald/tiny-qwen-image', models.base is 'another/base'"):
        as_trained(elsewhere, encoder)


def test_weights_are_the_checkpoints_in_bfloat16(runtime, repository):
    exported = load_file(repository / "encoder.safetensors")
    own = load_file(runtime.output / "train/first/checkpoints/step_00000003/encoder.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.bfloat16} and exported.keys() == own.keys()
    assert all(torch.equal(exported[name], own[name].to(torch.bfloat16)) for name in own)
    assert json.loads((repository / "encoder.json").read_text())["base"] == "harald/tiny-qwen-image"


def test_card_says_what_was_trained_how_long_and_on_what(repository):
    card = ModelCard.load(repository / "README.md")
    assert card.data.base_model == ["harald/tiny-qwen3-vl", "harald/tiny-qwen-image"]
    lines = [line for line in card.text.splitlines() if line.startswith(("| first", "| second"))]
    assert lines == ["| first | 2 | 0.001 | 1.0 | 0.0 | 0.0 |", "| second | 1 | 1e-05 | 1.0 | 0.0 | 0.0 |"]
    assert all(line in card.text for line in CONSENT.splitlines()) and "Consent and misuse" in card.text
    assert "4 states" in card.text and "Step 3 of run `first`" in card.text


def test_same_run_gives_the_same_bytes(runtime, repository):
    export_encoder.run(runtime, tiny(), "again")
    again = runtime.output / "export_encoder/again/repository"
    assert {f.name: f.read_bytes() for f in again.iterdir()} == {f.name: f.read_bytes() for f in repository.iterdir()}


def test_run_without_a_checkpoint_is_refused(runtime):
    (runtime.output / "train/empty").mkdir()
    (runtime.output / "train/empty/config.json").write_text((runtime.output / "train/first/config.json").read_text())
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        export_encoder.run(runtime, tiny(), "none", train_run="empty")

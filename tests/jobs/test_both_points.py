"""Tokens for both injection points, from training to pictures."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harald import hub
from harald.config import Injection, ModelRef
from harald.injection.person_file import load_person
from harald.jobs import export_encoder, generate, injection_poc, predict_tokens, train
from tests.states import write_dataset
from tests.training.test_loop import small

REPO = "me/both"


def both(**changes):
    c = small(**{"steps": 2, "sample_every": 9, "teacher_weight": 1.0, "contrast_weight": 0.1, **changes})
    return dataclasses.replace(
        c,
        injection=Injection("both"),
        poc=dataclasses.replace(c.poc, steps=1, scenes=c.poc.scenes[:1]),
        generate=dataclasses.replace(c.generate, steps=2),
    )


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """A data set, a run of two steps and its encoder as a repository of the cache."""
    made = write_dataset(tmp_path_factory.mktemp("root"), states=4, views=4)
    train.run(made, both(), "both")
    repository = export_encoder.run(made, both(), "exported", train_run="both")["repository"]
    hub.install(made.hf_cache, REPO, Path(repository))
    return made


def test_training_measures_every_loss_and_moves_what_goes_to_either_point(runtime):
    folder = runtime.output / "train/both"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row[name] > 0 for row in rows for name in ("flow", "teacher", "contrast", "grad_norm"))
    momenta = load_file(folder / "checkpoints/step_00000002/optimizer.safetensors")
    for half in momenta["connector.norm.weight/exp_avg"].chunk(2):
        assert half.abs().max() > 0


def test_exported_encoder_predicts_a_person_file_that_draws(runtime):
    preset = dataclasses.replace(both(), injection=Injection("output"))  # the encoder knows its own point
    config = dataclasses.replace(preset, models=dataclasses.replace(preset.models, trained=ModelRef(REPO)))
    state = next((runtime.root / "dataset/1").glob("seed_*")).name
    predict_tokens.run(runtime, config, "anna", state_id=state)
    person = load_person(runtime.output / "predict_tokens/anna/person.safetensors")
    assert person.point == "both" and person.tokens.shape == (16, 128)
    drawn = [
        generate.run(runtime, config, f"drawn{number}", prompt="<person> on a beach", person="anna", **flags)
        for number, flags in enumerate(({}, {"drop": "face,hair"}))
    ]
    assert [each["point"] for each in drawn] == ["both", "both"]
    first, other = (Path(each["pictures"][0]).read_bytes() for each in drawn)
    assert first != other


def test_injection_at_both_points_is_sound_and_optimised_beside_the_others(runtime):
    result = injection_poc.run(runtime, both(), "poc", train_run="both")
    assert {f"optimised, {point} point" for point in ("output", "input", "both")} < set(result["held_out_loss"])
    folder = Path(result["report"]).parent
    checks = json.loads((folder / "metrics.json").read_text())["checks"]
    assert "(b) own states, both point" in json.dumps(checks)
    one_pass = load_person(folder / "encoder__one_pass.safetensors")
    assert one_pass.point == "both" and torch.isfinite(torch.tensor(result["held_out_loss"]["encoder, one pass"]))

"""The score of persons set aside picks the checkpoint and ends the training."""

import dataclasses
import json

import pytest

from harald import runs
from harald.errors import TrainingError
from harald.jobs import train as job
from harald.jobs import validating, verify
from harald.runtime import Session
from harald.training.checkpoint import best_good, last_good, list_checkpoints
from harald.training.validation import SCORE, TIE, Validation, best_step, exhausted
from tests.states import write_dataset
from tests.training.test_loop import files, small


def lines(*scores: float | None) -> bytes:
    rows = [{"step": n, **({} if s is None else {SCORE: s})} for n, s in enumerate(scores, 1)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_last_of_the_best_scores_counts():
    assert best_step(lines(None, 0.5, None, 0.7, 0.7, 0.6)) == 5
    assert best_step(lines(None, None)) is None


def test_tie_counts_between_equal_scores_alone_and_for_patience_too():
    kept = [(1.0, 0.8), (1.0, 0.9), (1.0, 0.7), (0.9, 1.0)]
    rows = [Validation("twin", lambda t=twin, k=k: {"twin": t, "kept": k}, "kept").row() for twin, k in kept]
    told = "".join(json.dumps({"step": step} | row) + "\n" for step, row in enumerate(rows, 1)).encode()
    assert best_step(told) == 2
    assert exhausted(told, 2) and not exhausted(told, 3)
    assert json.loads(told.splitlines()[1])[TIE] == 0.9


def test_patience_counts_the_scores_since_the_best():
    assert not exhausted(lines(0.5, 0.7, None, 0.7), 2)
    assert exhausted(lines(0.5, 0.7, None, 0.7, 0.1), 2)
    assert not exhausted(lines(0.5, 0.4, 0.3), 0) and not exhausted(b"", 1)


def test_score_that_is_not_a_number_is_an_error_and_others_are_left_out():
    with pytest.raises(TrainingError, match="'twin'"):
        Validation("twin", lambda: {"twin": float("nan")}).row()
    row = Validation("twin", lambda: {"twin": 0.5, "kept glasses": float("nan")}).row()
    assert row == {SCORE: 0.5, "validation/twin": 0.5}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("root"), states=8)


def validated(**changes):
    settings = {"validate_every": 2, "keep_checkpoints": 1, "checkpoint_every": 3, "sample_every": 100, **changes}
    made = small(**settings)
    return dataclasses.replace(made, data=dataclasses.replace(made.data, validation_share=0.5))


@pytest.fixture(scope="module")
def unbroken(runtime):
    job.run(runtime, validated(), "unbroken")
    return runtime.output / "train" / "unbroken"


def test_scores_stand_in_the_metrics_and_change_no_step(runtime, unbroken):
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if SCORE in row] == [2, 4, 6]
    assert {"validation/gap", "validation/gain", "validation/own"} <= set(rows[1])
    job.run(runtime, validated(validate_every=0), "without")
    without = (runtime.output / "train" / "without" / "metrics.jsonl").read_text().splitlines()
    assert [{k: v for k, v in row.items() if "validation" not in k} for row in rows] == [*map(json.loads, without)]


class StopsAtOnce(Session):
    stopping = True


def test_resumed_run_equals_unbroken_run_scores_and_best_checkpoint_included(runtime, unbroken):
    stopped = dataclasses.replace(runtime, session=StopsAtOnce())
    for _ in range(3):  # stops behind every step, validated ones among them
        assert job.run(stopped, validated(), "resumed")["state"] == "stopped"
    assert job.run(runtime, validated(), "resumed")["state"] == "done"
    assert files(runtime.output / "train" / "resumed") == files(unbroken)


def scripted(monkeypatch, scores):
    """Scores in the order in which they are asked for."""
    left = iter(scores)
    monkeypatch.setattr(job, "validation", lambda *_: Validation("twin", lambda: {"twin": next(left)}))


def test_best_checkpoint_stays_and_is_the_one_that_is_used(runtime, monkeypatch):
    scripted(monkeypatch, [0.9, 0.5, 0.7])
    result = job.run(runtime, validated(), "best")
    checkpoints = runtime.output / "train/best/checkpoints"
    assert result["best_step"] == 2 and result["state"] == "done"
    assert [path.name for path in list_checkpoints(checkpoints)] == ["step_00000002", "step_00000006"]
    assert best_good(checkpoints) == checkpoints / "step_00000002"
    runs.write_bytes(checkpoints / "step_00000002" / "encoder.safetensors", b"damaged")
    assert best_good(checkpoints) == last_good(checkpoints) == checkpoints / "step_00000006"


def test_run_made_longer_has_the_scores_of_an_unbroken_one_and_says_which_steps_have_none(runtime, unbroken, caplog):
    job.run(runtime, validated(steps=3), "longer")
    assert "the last 1 steps will not be scored" in caplog.text
    job.run(runtime, validated(), "longer")
    lines = [(folder / "metrics.jsonl").read_bytes() for folder in (runtime.output / "train" / "longer", unbroken)]
    assert lines[0] == lines[1]
    assert verify.run(runtime, validated(), "odd", train_run="longer", steps=3)["same_bytes"]


def test_training_ends_early_and_stays_ended(runtime, monkeypatch):
    scripted(monkeypatch, [0.9, 0.5, 0.7])
    result = job.run(runtime, validated(steps=20, patience=1), "early")
    assert (result["state"], result["to_step"], result["best_step"]) == ("done", 4, 2)
    again = job.run(runtime, validated(steps=20, patience=1), "early")
    assert (again["from_step"], again["to_step"], again["state"]) == (4, 4, "done")
    scripted(monkeypatch, [0.7])
    assert job.run(runtime, validated(steps=6, patience=3), "early")["to_step"] == 6


def test_too_few_states_to_validate_on_are_an_error(runtime):
    with pytest.raises(TrainingError, match="set aside"):
        validating.validation(None, None, [], validated(), runtime.output)

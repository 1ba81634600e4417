"""Determinism of whole runs, through the train job itself."""

import dataclasses
import json
import shutil

import pytest

from harald import config, runs
from harald.errors import ConfigError, TrainingError
from harald.jobs import train as job
from harald.jobs import verify
from harald.settings import identity_hash
from harald.training.checkpoint import last_good, list_checkpoints
from tests.states import write_dataset, write_state


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("root"), states=6)


def small(**changes):
    c = config.tiny()
    settings = {"steps": 6, "checkpoint_every": 2, "keep_checkpoints": 2, "sample_every": 3, **changes}
    return dataclasses.replace(c, train=dataclasses.replace(c.train, **settings))


@pytest.fixture(scope="module")
def unbroken(runtime):
    job.run(runtime, small(), "unbroken")
    return runtime.output / "train" / "unbroken"


def files(folder) -> dict[str, str]:
    """Hash of everything that the contract covers."""
    kept = [
        p
        for p in folder.rglob("*")
        if p.is_file() and p.relative_to(folder).parts[0] in ("checkpoints", "samples", "metrics.jsonl")
    ]
    return {str(p.relative_to(folder)): runs.sha256(p) for p in kept}


def test_run_writes_what_it_promises(unbroken):
    assert [p.name for p in list_checkpoints(unbroken / "checkpoints")] == ["step_00000004", "step_00000006"]
    assert [p.name for p in sorted((unbroken / "samples").iterdir())] == [f"step_{s:08d}.png" for s in (0, 3, 6)]
    rows = [json.loads(line) for line in (unbroken / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "grad_norm", "flow", "learning_rate"} <= set(rows[0])
    logged = "".join(path.read_text() for path in (unbroken / "trackio").rglob("*.jsonl")).splitlines()
    tracked = {r["step"]: r["metrics"]["loss"] for r in map(json.loads, logged) if r["kind"] == "metric"}
    assert tracked == {row["step"]: row["loss"] for row in rows}
    assert (unbroken / "report.html").stat().st_size > 10_000
    fingerprint = json.loads((unbroken / "fingerprint.json").read_text())
    assert fingerprint["versions"]["torch"] and fingerprint["config_hash"]


def test_two_runs_give_the_same_bytes(runtime, unbroken):
    job.run(runtime, small(), "again")
    assert list((runtime.output / "train" / "again" / "trackio").rglob("*.jsonl"))  # a folder of its own
    assert files(runtime.output / "train" / "again") == files(unbroken)


def test_another_seed_gives_other_bytes(runtime, unbroken):
    job.run(runtime, dataclasses.replace(small(), seed=1), "other-seed")
    other = files(runtime.output / "train" / "other-seed")
    assert all(
        other[name] != digest for name, digest in files(unbroken).items() if name.endswith("encoder.safetensors")
    )


def test_resumed_run_equals_unbroken_run(runtime, unbroken):
    folder = runtime.output / "train" / "resumed"
    assert job.run(runtime, small(steps=4), "resumed")["from_step"] == 0
    assert job.run(runtime, small(), "resumed")["from_step"] == 4
    ours, theirs = files(folder), files(unbroken)
    ours.pop("samples/step_00000004.png")  # the first run's last step
    assert ours == theirs


def test_damaged_checkpoint_is_passed_over_and_the_run_ends_with_the_same_bytes(runtime, unbroken, caplog):
    folder = runtime.output / "train" / "damaged"
    shutil.copytree(unbroken, folder)
    broken = folder / "checkpoints" / "step_00000006" / "optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    assert last_good(folder / "checkpoints", identity_hash(small())).name == "step_00000004"
    assert "step_00000006 is passed over: damaged files: optimizer.safetensors" in caplog.text
    assert job.run(runtime, small(), "damaged")["from_step"] == 4
    assert files(folder) == files(unbroken)


def test_lines_beyond_the_checkpoint_and_cut_lines_are_dropped(runtime, unbroken):
    folder = runtime.output / "train" / "lines"
    job.run(runtime, small(steps=4), "lines")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 99}\n{"step": 6, "lo')
    job.run(runtime, small(), "lines")
    assert (folder / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()


def test_changed_data_set_is_told_when_a_run_goes_on(tmp_path, caplog):
    runtime = write_dataset(tmp_path, states=4)
    job.run(runtime, small(steps=2), "grows")
    assert "has changed" not in caplog.text
    write_state(tmp_path / "dataset" / "1", 9999)
    job.run(runtime, small(steps=4), "grows")
    assert "the data set has changed since this run began" in caplog.text


def test_finished_run_started_again_does_nothing(runtime, unbroken):
    before = files(unbroken)
    assert job.run(runtime, small(), "unbroken")["from_step"] == 6
    assert files(unbroken) == before


def test_same_name_with_another_configuration_is_refused(runtime, unbroken):
    with pytest.raises(ConfigError, match=r"train\.learning_rate 0\.001 -> 0\.5"):
        job.run(runtime, small(learning_rate=0.5), "unbroken")


def test_verify_finds_the_same_bytes_and_tells_where_they_differ(runtime, unbroken):
    assert verify.run(runtime, small(), "good", "unbroken", steps=2)["same_bytes"]
    tampered = runtime.output / "train" / "tampered"
    shutil.copytree(unbroken, tampered)
    lines = (tampered / "metrics.jsonl").read_text().splitlines()
    (tampered / "metrics.jsonl").write_text("\n".join([lines[0].replace('"loss": 1', '"loss": 2'), *lines[1:]]))
    end = tampered / "checkpoints" / "step_00000006" / "encoder.safetensors"
    end.write_bytes(end.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(
        TrainingError, match=r"metrics\.jsonl line 1; step_00000004 to step_00000006: encoder\.safetensors"
    ):
        verify.run(runtime, small(), "bad", "tampered", steps=2)


def test_latent_cache_changes_no_bit_of_training(runtime, unbroken):
    from harald.jobs import prepare

    prepare.run(runtime, config.tiny(), "latents")
    job.run(runtime, small(latents="latents"), "cached")
    assert (runtime.output / "train" / "cached" / "metrics.jsonl").read_bytes() == (
        unbroken / "metrics.jsonl"
    ).read_bytes()

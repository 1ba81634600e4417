"""Determinism of whole runs, through the train job itself."""

import dataclasses
import errno
import gc
import itertools
import json
import os
import shutil

import pytest

from harald import config, runs
from harald.errors import ConfigError, RunError, TrainingError
from harald.jobs import train as job
from harald.jobs import verify
from harald.runtime import Session
from harald.settings import identity_hash
from harald.training import disk
from harald.training.checkpoint import last_good, list_checkpoints
from harald.training.loop import settled
from harald.training.tracking import Metrics
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


def test_number_of_states_bounds_those_that_are_trained_on_and_not_those_set_aside(runtime, caplog):
    few = small(steps=1, sample_every=9)
    with caplog.at_level("INFO", "harald.jobs.train"):
        job.run(runtime, dataclasses.replace(few, data=dataclasses.replace(few.data, max_states=3)), "few")
    assert "3 of 6 states to train on, 2 to validate on" in caplog.text  # 4 without


def test_weight_of_parts_is_refused_where_no_picture_says_where_they_are(runtime):
    with pytest.raises(
        TrainingError, match=r"part_weight is 3\.0, and none of 24 pictures has a mask .*\n.*parts\.png"
    ):
        job.run(runtime, small(part_weight=3.0), "no-masks")


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


def test_run_with_muon_resumes_to_the_same_bytes(runtime):
    for name, steps in (("muon", (4,)), ("muon-resumed", (2, 4))):
        for last in steps:
            job.run(runtime, small(optimizer="muon", sample_every=9), name, steps=last)
    folders = [runtime.output / "train" / name / "checkpoints" for name in ("muon", "muon-resumed")]
    assert files(folders[0].parent)["checkpoints/step_00000004/optimizer.safetensors"]
    assert len({files(folder.parent)["checkpoints/step_00000004/encoder.safetensors"] for folder in folders}) == 1
    assert len({files(folder.parent)["checkpoints/step_00000004/optimizer.safetensors"] for folder in folders}) == 1


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


class StopsAt(Session):
    """Somebody asks the job to stop once a step is known to be done: the next one is under way by then."""

    def __init__(self, step: int):
        self.step, self.done = step, 0

    @property
    def stopping(self) -> bool:
        return self.done >= self.step

    def progress(self, done: int, total: int, unit: str) -> None:
        self.done = done


def test_stopped_run_writes_a_checkpoint_at_that_step_and_ends_with_the_bytes_of_an_unbroken_one(runtime, unbroken):
    name, step = "stopped", 5  # one step before a checkpoint in turn
    stopped = job.run(dataclasses.replace(runtime, session=StopsAt(step - 1)), small(), name)
    folder = runtime.output / "train" / name
    assert (stopped["state"], stopped["to_step"]) == ("stopped", step)
    assert list_checkpoints(folder / "checkpoints")[-1].name == f"step_{step:08d}"
    assert (folder / "report.html").exists()
    resumed = job.run(runtime, small(), name)
    assert (resumed["state"], resumed["from_step"]) == ("done", step)
    assert files(folder) == files(unbroken)


class TakenOverAt(StopsAt):
    """Another process has the run from a step on."""

    stopping = False

    def check(self) -> None:
        if self.done >= self.step:
            raise RunError("taken over")


def test_run_that_was_taken_over_writes_no_further_checkpoint(runtime):
    with pytest.raises(RunError):
        job.run(dataclasses.replace(runtime, session=TakenOverAt(3)), small(), "taken")
    folder = runtime.output / "train" / "taken" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step_00000002"]


def failing_flushes(monkeypatch, number: int, fails) -> None:
    """Flushes of files of checkpoints fail with this errno where fails(how many there were)."""
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))
    count, flush = itertools.count(1), os.fsync

    def fsync(descriptor: int) -> None:
        if "checkpoints" in os.readlink(f"/proc/self/fd/{descriptor}") and fails(next(count)):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(runs.os, "fsync", fsync)


def test_disk_that_fails_for_a_while_costs_no_checkpoint_and_no_byte(runtime, unbroken, monkeypatch, caplog):
    failing_flushes(monkeypatch, errno.EIO, {2, 6, 14}.__contains__)
    job.run(runtime, small(), "flaky")
    assert caplog.text.count("cannot be written (Input/output error)") == 3
    assert files(runtime.output / "train" / "flaky") == files(unbroken)


def test_disk_that_stays_full_leaves_the_last_checkpoint_and_the_run_goes_on_from_it(runtime, unbroken, monkeypatch):
    name = "full"
    with monkeypatch.context() as patch:
        failing_flushes(patch, errno.ENOSPC, lambda count: count > 7)
        with pytest.raises(TrainingError, match=r"after 3 tries: it takes \d+\.\d MiB, \d+\.\d MiB are free"):
            job.run(runtime, small(), name)
    folder = runtime.output / "train" / name
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000002"]
    assert job.run(runtime, small(), name)["from_step"] == 2
    assert files(folder) == files(unbroken)


def test_folder_that_vanished_is_not_made_anew_on_another_disk(runtime, monkeypatch):
    monkeypatch.setattr(disk, "WAITS", ())
    folder = runtime.output / "train" / "vanished"

    class Unmounts(StopsAt):
        def progress(self, done: int, total: int, unit: str) -> None:
            if done == 2:
                shutil.rmtree(folder)
                folder.mkdir()  # the place where a volume was mounted stays

        stopping = False

    with pytest.raises(TrainingError, match=r"checkpoint step_00000002 in .* \(No such file or directory\)"):
        job.run(dataclasses.replace(runtime, session=Unmounts(2)), small(sample_every=6), "vanished")
    assert not (folder / "checkpoints").exists()


def test_metrics_that_were_cut_or_lost_are_those_of_the_checkpoint_again(runtime, unbroken):
    lines = (unbroken / "metrics.jsonl").read_bytes()
    for name, harm in (("torn", lines[:200] + lines[230:]), ("empty", b""), ("twice", lines * 2)):
        folder = runtime.output / "train" / name
        shutil.copytree(unbroken, folder)
        (folder / "metrics.jsonl").write_bytes(harm)
        job.run(runtime, small(), name)
        assert (folder / "metrics.jsonl").read_bytes() == lines


def test_line_that_a_full_disk_has_cut_is_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "WAITS", (0.0,))
    metrics = Metrics(tmp_path / "metrics.jsonl", None, 0)
    metrics.write({"step": 1})
    with metrics.file.open("ab") as file:
        file.write(b'{"st')
    metrics.write({"step": 2})
    assert metrics.file.read_text() == '{"step": 1}\n{"step": 2}\n'


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


def test_garbage_collection_leaves_alone_what_is_there_while_training_and_nothing_for_good():
    with pytest.raises(KeyboardInterrupt), settled():
        assert gc.get_freeze_count() > 1000
        raise KeyboardInterrupt
    assert gc.get_freeze_count() == 0

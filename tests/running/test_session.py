"""What a run tells about itself, what it hears, what it costs; through the jobs' own door."""

import dataclasses
import json
import os
import threading
import time

import pytest

from harald import config, jobs, runs
from harald.errors import ConfigError, DatasetError, RunError
from harald.jobs import run_job
from harald.jobs import stop as stop_job
from harald.jobs.runs import describe, table
from harald.running import price, status
from harald.running.lease import Lease
from harald.running.price import duration, estimate
from harald.running.session import Watched
from harald.runtime import Machine, Pace

QUICK = Pace(poll=0.02, beat=0.05, note=0.05)


@pytest.fixture
def quick(runtime):
    return dataclasses.replace(runtime, pace=QUICK)


def open_run(runtime, session, name="a", job="train"):
    return runs.open_run(dataclasses.replace(runtime, session=session), job, name, config.tiny())


def wait_until(true) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_run_is_held_while_the_job_works_and_free_afterwards(quick):
    with Watched(quick, "train", "tiny") as session:
        folder = open_run(quick, session)
        first = json.loads((folder / runs.LEASE).read_text())["beat"]
        wait_until(lambda: json.loads((folder / runs.LEASE).read_text())["beat"] > first + 1)
        assert status.read(folder).state == "running"
    assert status.read(folder).state == "done"
    assert not (folder / runs.LEASE).exists()


def test_job_that_lost_its_run_stops_and_leaves_the_status_to_the_new_owner(quick):
    """Without a sign of life meanwhile: one that is just being written would win over the newcomer, who then stops."""
    silent = dataclasses.replace(quick, pace=Pace(poll=0.02, beat=60.0))
    with pytest.raises(RunError, match="fc-2 has taken it over"), Watched(silent, "train", "tiny") as session:
        folder = open_run(silent, session)
        note = json.loads((folder / runs.LEASE).read_text())
        runs.write_json(
            folder / runs.LEASE, {**note, "nonce": "other", "owner": {**note["owner"], "key": "fc-2", "host": ""}}
        )
        session.check()
    assert json.loads((folder / runs.LEASE).read_text())["nonce"] == "other"
    assert status.read(folder).state == "running"


def test_request_to_stop_is_heard_by_the_owner_and_not_by_a_later_start(quick):
    config_ = config.tiny()
    with Watched(quick, "train", "tiny") as session:
        folder = open_run(quick, session)
        stop_job.run(quick, config_, "a")
        wait_until(lambda: session.stopping)
        session.progress(3, 10, "step")
    assert status.read(folder).state == "stopped" and not (folder / runs.STOP).exists()
    with pytest.raises(RunError, match="run 'a' of train is not running"):
        stop_job.run(quick, config_, "a")
    runs.write_json(folder / runs.STOP, {"owner": "somebody/else", "asked": 0})
    with Watched(quick, "train", "tiny") as session:
        open_run(quick, session)
        assert not (folder / runs.STOP).exists()
        time.sleep(3 * QUICK.poll)
        assert not session.stopping


def test_failure_is_told_without_pictures_paths_and_secrets(quick, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "abcdef123")
    what = "/home/x/My Photos/anna 1.png and photo_view_02.jpg of 'photos/anna' below ./mnt/d: abcdef123, hf_secret1"
    with pytest.raises(DatasetError), Watched(quick, "train", "tiny") as session:
        folder = open_run(quick, session)
        raise DatasetError(what, "second line")
    found = status.read(folder)
    assert found.state == "failed"
    assert found.error == "DatasetError: <picture> and <picture> of <path> below <path>: <secret>, <secret>"


def test_seconds_and_cost_sum_up_over_the_starts_of_a_run(quick):
    paid = dataclasses.replace(quick, machine=Machine("H200", 3600.0, price=2.0, part=2.0))
    for start, done in ((1, 4), (2, 10)):
        with Watched(paid, "train", "tiny") as session:
            folder = open_run(paid, session)
            session.progress(done - 4 if start == 1 else 4, 10, "step")
            session.progress(done, 10, "step")
            session.add_seconds(100.0)
        assert session.facts()["cost"] == pytest.approx(200, abs=5)
    found = status.read(folder)
    assert (found.starts, found.units, found.done, found.gpu) == (2, 10, 10, "H200")
    assert found.seconds == pytest.approx(200, abs=3) and found.cost == pytest.approx(400, abs=6)


def test_job_that_fails_says_what_it_took_and_cost(quick, caplog):
    paid = dataclasses.replace(quick, machine=Machine("H200", 3600.0, price=2.0, part=2.0))
    with caplog.at_level("INFO"), pytest.raises(DatasetError), Watched(paid, "train", "tiny") as session:
        open_run(paid, session)
        session.add_seconds(100.0)
        raise DatasetError("a picture is gone")
    assert "train took 100 s, $200" in caplog.text


def test_time_out_that_comes_near_ends_the_call_for_another_one(quick):
    """What listens is stopped in time and fails, so that Modal tries again; what does not listen is left alone."""
    short = dataclasses.replace(quick, call="fc-1", machine=Machine("H200", timeout=1.0, price=2.0))
    with pytest.raises(RunError, match="1 s of this call are nearly over"), Watched(short, "train", "tiny") as session:
        folder = open_run(short, session)
        assert not session.stopping
        wait_until(lambda: session.stopping)
        session.progress(3, 10, "step")
    assert status.read(folder).state == "stopped" and not (folder / runs.LEASE).exists()
    with Watched(short, "train", "tiny") as session:  # the next call: it ends before its time is over
        open_run(short, session)
        assert not session.stopping
        session.progress(10, 10, "step")
    assert status.read(folder).state == "done"
    with Watched(short, "generate", "tiny") as session:
        runs.open_run(dataclasses.replace(short, session=session), "generate", "b", config.tiny(), drawings=1)
        time.sleep(1.2)
        session.progress(1, 2, "picture")


def test_estimate_scales_what_finished_runs_of_the_same_kind_took(tmp_path):
    machine = Machine("H200", 86400.0, price=0.001)
    assert estimate(tmp_path, "full", "H200", 500, machine) == (
        "estimate: not measured yet on H200; at most 24.0 h = $86.40 at list price"
    )
    for name, gpu, seconds, completed in (
        ("a", "H200", 100, 1),
        ("b", "H200", 300, 1),
        ("c", "H200", 9e9, 0),
        ("d", "B200", 9e9, 1),
    ):
        (tmp_path / name).mkdir()
        status.Status("train", name, "full", gpu, seconds=seconds, units=100, completed=completed).write(
            tmp_path / name
        )
    assert estimate(tmp_path, "full", "H200", 500, machine) == (
        "estimate: about 17 min = $1.00 at list price, from 2 finished runs on H200"
    )
    assert estimate(tmp_path, "full", "H200", None, machine).startswith("estimate: about 3 min")
    assert estimate(tmp_path, "tiny", "H200", None, Machine()) == "estimate: not measured yet on H200"
    unknown = dataclasses.replace(machine, price=None)
    assert "no list price known" in estimate(tmp_path, "full", "H200", 500, unknown)


def test_price_of_a_job_is_that_of_all_it_reserves():
    assert config.price({"cpu": 2.0, "memory": 2048}) == pytest.approx(2 * config.PRICE_CORE + 2 * config.PRICE_GIB)
    one, two = (config.price({"gpu": f"H200{count}", "memory": 1024}) for count in ("!", ":2"))
    assert two - one == pytest.approx(config.PRICE_GPU["H200"])
    assert config.price({"gpu": "ABACUS"}) is None


def test_every_gpu_that_a_job_asks_for_has_a_price():
    for options in (config.TRAIN_JOB, config.INFER_JOB, config.PRETRAIN_JOB, config.TEST_JOB):
        assert config.price(options)


def test_best_score_is_kept_over_starts(quick):
    for values in ((3.0, 5.0, 4.0), (4.5,)):
        with Watched(quick, "train", "tiny") as session:
            folder = open_run(quick, session)
            for value in values:
                session.score("psnr", value)
    assert (status.read(folder).score_name, status.read(folder).score) == ("psnr", 5.0)


def test_job_without_a_run_says_what_it_takes_and_cost(quick, caplog):
    paid = dataclasses.replace(quick, machine=Machine("", 3600.0, price=0.5))
    with caplog.at_level("INFO"):
        run_job("runs", paid, "tiny", "", 0, "{}", job="")
    assert "estimate: seconds" in caplog.text and "runs took 0 s, $" in caplog.text


def test_runs_lists_every_run_and_tells_a_lost_one(quick):
    with Watched(quick, "train", "tiny") as session:
        open_run(quick, session, "ended")
        session.progress(40, 40, "step")
    with Watched(quick, "generate", "tiny") as session:
        alive = runs.open_run(
            dataclasses.replace(quick, session=session), "generate", "alive", config.tiny(), drawings=1
        )
        dead = quick.output / "train" / "dead"
        dead.mkdir()
        runs.write_text(dead / runs.CONFIG, "{}")
        status.Status("train", "dead", "tiny", "", done=3, total=9, unit="step").write(dead)
        old = quick.output / "train" / "old"
        old.mkdir()
        runs.write_text(old / runs.CONFIG, "{}")
        before = sorted(quick.output.rglob("[!.]*"))
        result = run_job("runs", quick, "tiny", "", 0, "{}", job="")
        assert sorted(quick.output.rglob("[!.]*")) == before
        assert describe(quick, alive)["state"] == "running"
    states = {row["run"]: row["state"] for row in result["runs"]}
    assert states == {"ended": "done", "alive": "running", "dead": "lost", "old": None}
    assert [row["run"] for row in run_job("runs", quick, "tiny", "dead", 0, "{}", job="train")["runs"]] == ["dead"]
    for names in (("../../x", ""), ("", "/etc"), ("", "..")):
        with pytest.raises(ConfigError, match="use letters, digits"):
            run_job("runs", quick, "tiny", names[0], 0, "{}", job=names[1])
    lines = table(result["runs"]).splitlines()
    assert {line.index("train") for line in lines[1:] if "train" in line} == {0}
    (dead_line,) = (line for line in lines if " dead " in line)
    assert "lost" in dead_line and "3/9 steps" in dead_line


def test_job_that_knows_nothing_of_leases_is_refused_all_the_same_and_says_what_it_took(runtime):
    held = runtime.output / "download_models" / "b"
    held.mkdir(parents=True)
    Lease(dataclasses.replace(runtime, call="fc-1"), held).take()
    with pytest.raises(RunError, match="run 'b' of download_models is held by function call fc-1"):
        run_job("download_models", runtime, "tiny", "b", 0, "{}")
    assert [path.name for path in held.iterdir()] == [runs.LEASE]
    result = run_job("download_models", runtime, "tiny", "c", 0, "{}")
    assert result["seconds"] > 0 and result["cost"] == 0
    assert status.read(runtime.output / "download_models" / "c").state == "done"


def test_seconds_of_other_containers_are_added(quick, monkeypatch):
    monkeypatch.setattr(jobs, "part", lambda name: lambda runtime, item: item * 2)
    remote = dataclasses.replace(quick, remote_map=lambda name, items: (jobs.run_part(name, quick, i) for i in items))
    with Watched(remote, "prepare", "tiny") as session:
        held = dataclasses.replace(remote, session=session)
        assert list(held.map(test_seconds_of_other_containers_are_added, [(1,), (2,)])) == [2, 4]
        assert session.elsewhere > 0


def test_cost_of_a_fan_out_is_that_of_the_machines_it_uses(quick):
    paid = dataclasses.replace(quick, machine=Machine("", 3600.0, price=0.001, part=2.0))
    with Watched(paid, "prepare", "tiny") as session:
        folder = open_run(paid, session, job="prepare")
        session.add_seconds(100.0)
    assert session.facts()["cost"] == pytest.approx(200, abs=0.1)
    eight = price.with_parts("prepare", config.full(), paid.machine)
    assert estimate(folder / "none", "full", "", None, eight).endswith("at most 60 min = $57603.60 at list price")
    assert "about 100 s = $200" in estimate(folder.parent, "tiny", status.read(folder).gpu, None, eight)
    assert price.with_parts("train", config.full(), paid.machine) == paid.machine


def test_part_sees_what_a_container_before_it_has_written(quick, monkeypatch):
    """A try after a lost container may come to a warm one, whose view of the volume is old."""
    seen = []
    monkeypatch.setattr(jobs, "part", lambda name: lambda runtime: seen.append("worked"))
    jobs.run_part("encode_shards", dataclasses.replace(quick, reload=lambda: seen.append("reloaded")), ())
    assert seen == ["reloaded", "worked"]


def test_interrupt_inside_a_step_waits_for_its_end_and_the_second_one_does_not(quick):
    with Watched(quick, "train", "tiny") as session:
        folder = open_run(quick, session)
        with session.finishes_step():
            os.kill(os.getpid(), 2)
            wait_until(lambda: session.stopping)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), 2)
                time.sleep(5)
        session.progress(1, 2, "step")
    assert status.read(folder).state == "stopped"
    assert threading.active_count() < 20


def test_interrupted_container_ends_its_call_unfinished(quick):
    """What comes in its place has the same call, and goes on."""
    remote = dataclasses.replace(quick, call="fc-1")
    with pytest.raises(KeyboardInterrupt), Watched(remote, "train", "tiny") as session:
        open_run(remote, session)
        with session.finishes_step():
            os.kill(os.getpid(), 2)
            wait_until(lambda: session.stopping)
            session.progress(1, 2, "step")


@pytest.mark.parametrize(("seconds", "text"), [(7, "7 s"), (119, "119 s"), (300, "5 min"), (9000, "2.5 h")])
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text

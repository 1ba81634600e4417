"""Runs on Modal: one writer, stop, price; through the real entrypoint and the volume's own way to read."""

import json
import threading
import time
from pathlib import Path

import pytest

from harald import runs
from harald.config import DATASETS, TRAIN_JOB, price
from harald.running import status
from tests.modal.conftest import Cloud, Run, write_states

pytestmark = pytest.mark.modal


def test_run_that_another_call_writes_into_is_refused(cloud: Cloud):
    folder = cloud.output / "check_dataset" / "held"
    owner = {"key": "fc-other", "host": "", "pid": 0, "started": 0.0}
    lease = {"owner": owner, "nonce": "n", "beat": 3, "since": time.time() - 60, "renewed": time.time()}
    runs.write_json(folder / runs.LEASE, lease)
    run = cloud.run("check_dataset", "--preset", "tiny", "--run-name", "held")
    assert run.code != 0 and "run 'held' of check_dataset is held by function call fc-other since" in run.output
    assert "Traceback" not in run.output
    assert json.loads((folder / runs.LEASE).read_text()) == lease and len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_training_that_the_job_stop_asks_ends_well_and_says_what_it_cost(cloud: Cloud, tmp_path):
    write_states(cloud.state / "volumes" / DATASETS[1], first=100, training=3, validation=1)
    folder, asked = cloud.output / "train" / "stopped", []
    beside = Cloud(tmp_path)  # a second service with the same volumes: a command from another terminal
    (tmp_path / "volumes").symlink_to(cloud.state / "volumes")
    thread = threading.Thread(target=lambda: asked.append(ask_to_stop(folder, beside)))
    thread.start()
    run = cloud.run("train", "--preset", "tiny", "--run-name", "stopped", "--steps", "5000")
    thread.join()
    assert asked[0].code == 0 and "asked function call" in asked[0].output, asked[0].output
    assert run.code == 0, run.output
    rate = price(TRAIN_JOB)
    assert rate is not None and "not measured yet on H200; at most 24.0 h = $" in run.output
    assert "train took" in run.output and "at list price" in run.output
    said = status.read(folder)
    assert said is not None and (said.state, said.gpu, said.total) == ("stopped", "H200", 5000)
    assert said.cost == pytest.approx(said.seconds * rate, abs=1e-3) and said.cost > 0
    assert (folder / "checkpoints" / f"step_{said.done:08d}").is_dir()
    assert not (folder / runs.LEASE).exists() and not (folder / runs.STOP).exists()
    listed = beside.run("runs", "--preset", "tiny", "--job", "train")
    assert f"{said.done}/5000 steps" in listed.output and "stopped" in listed.output, listed.output


def ask_to_stop(folder: Path, beside: Cloud) -> Run:
    """Once the run has taken steps."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size:
            break
        time.sleep(0.1)
    return beside.run("stop", "--preset", "tiny", "--job", "train", "--run-name", "stopped")

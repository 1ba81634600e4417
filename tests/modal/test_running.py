"""Runs on Modal: one writer, stop, price; through the real entrypoint and the volume's own way to read."""

import json
import threading
import time
from pathlib import Path

import pytest

from harald import runs
from harald.config import DATASETS, TRAIN_JOB, price
from harald.running import status
from tests.modal.conftest import Cloud, write_states

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
def test_training_that_is_asked_to_stop_ends_well_and_says_what_it_cost(cloud: Cloud):
    write_states(cloud.state / "volumes" / DATASETS[1], first=100, training=3, validation=1)
    folder, over = cloud.output / "train" / "stopped", threading.Event()
    thread = threading.Thread(target=ask_to_stop, args=(folder, over))
    thread.start()
    try:
        run = cloud.run("train", "--preset", "tiny", "--run-name", "stopped", "--steps", "5000")
    finally:
        over.set()
        thread.join()
    assert run.code == 0, run.output
    rate = price(TRAIN_JOB)
    assert rate is not None and "not measured yet on H200; at most 24.0 h = $" in run.output
    said = status.read(folder)
    assert said is not None and (said.state, said.gpu, said.total) == ("stopped", "H200", 5000)
    assert said.cost == pytest.approx(said.seconds * rate, abs=1e-3) and said.cost > 0
    assert (folder / "checkpoints" / f"step_{said.done:08d}").is_dir()
    assert not (folder / runs.LEASE).exists() and not (folder / runs.STOP).exists()


def ask_to_stop(folder: Path, over: threading.Event) -> None:
    """As the job `stop` does in a container of its own, once the run has taken steps."""
    while not over.wait(0.1):
        if (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size:
            owner = json.loads((folder / runs.LEASE).read_text())["owner"]
            runs.write_json(folder / runs.STOP, {"owner": owner["key"], "asked": time.time()})
            return

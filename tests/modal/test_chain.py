"""All jobs, one after the other, on the tiny preset: each is judged by what it left in the output volume."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harald.config import DATASETS
from harald.data.latents import read_index
from harald.jobs import prepare
from harald.runs import sha256
from harald.runtime import Runtime
from harald.settings import resolve
from tests import models
from tests.modal.conftest import Cloud, Run, write_states

pytestmark = [pytest.mark.modal, pytest.mark.slow]

RUN = ("--preset", "tiny", "--run-name", "chain")
TRAIN = ("--steps", "20", "--checkpoint-every", "2")


@pytest.fixture(scope="module")
def chain(cloud: Cloud) -> Cloud:
    """Two base folders with persons, as a user would have uploaded them."""
    first, second = (cloud.state / "volumes" / name for name in DATASETS.values())
    write_states(first, first=100, training=3, validation=1, held_out=1)
    write_states(second, first=200, training=1, validation=1, held_out=1)
    return cloud


def good(run: Run) -> Run:
    assert run.code == 0, run.output
    return run


def read(path: Path):
    return json.loads(path.read_text())


def test_doctor_finds_nothing_missing(chain):
    good(chain.run("doctor", *RUN))
    checks = {check["check"]: check for check in read(chain.output / "doctor/chain/doctor.json")}
    assert {check["state"] for check in checks.values()} == {"ok"}
    assert checks["dataset"]["detail"] == "dataset/1: 5 states, dataset/2: 3 states"


def test_download_models_records_the_revisions(chain):
    good(chain.run("download_models", *RUN))
    revisions = read(chain.output / "download_models/chain/revisions.json")
    assert set(revisions) == {"harald/tiny-qwen-image", "harald/tiny-qwen3-vl"} and all(revisions.values())


def test_check_dataset_lists_every_state_of_both_base_folders(chain):
    good(chain.run("check_dataset", *RUN))
    (manifest,) = (chain.output / "check_dataset/chain").glob("*.parquet")
    states = {path.name for name in DATASETS.values() for path in (chain.state / "volumes" / name).iterdir()}
    assert len(states) == 8 and set(pq.read_table(manifest)["state_id"].to_pylist()) == states


def test_preempted_prepare_ends_with_the_shards_of_an_undisturbed_one(chain, tmp_path):
    """The service interrupts a part after its first shard and starts another one."""
    small = '{"prepare.pictures_per_shard": 1, "prepare.containers": 1}'
    volumes = {number: chain.state / "volumes" / name for number, name in DATASETS.items()}
    pictures = len({sha256(path) for base in volumes.values() for path in base.glob("*/*.png")})  # some are the same
    run = good(chain.run("prepare", *RUN, "--overrides", small, preempt="part:latents/*/*.safetensors"))
    assert [container["preempted"] for container in run.containers("part")] == [True, False]
    assert len(re.findall(f"this part: 1 of {pictures} pictures", run.output)) == 2, run.output
    assert read_index(chain.output / "prepare/chain")[1].keys() == {
        f"{state.name}/{path.name}" for name in DATASETS.values()
        for state in (chain.state / "volumes" / name).iterdir() for path in state.glob("*.png")
    }  # fmt: skip
    here = Runtime(tmp_path, volumes, tmp_path / "output", models.cache())
    assert prepare.run(here, resolve("tiny", overrides=small), "here")["shards"] == pictures
    assert shards(chain.output) == shards(here.output)


def shards(output: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in (output / "latents").glob("*/*.safetensors")}


def test_injection_poc_ends_with_a_report_and_person_files(chain):
    good(chain.run("injection_poc", *RUN, "--overrides", '{"poc.steps": 3}'))
    folder = chain.output / "injection_poc/chain"
    assert "<html" in (folder / "report.html").read_text() and list(folder.glob("*.safetensors"))


def test_train_writes_checkpoints_metrics_and_a_report(chain):
    good(chain.run("train", *RUN, *TRAIN, "--overrides", '{"train.latents": "chain"}'))
    folder = chain.output / "train/chain"
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == [f"step_{n:08d}" for n in (16, 18, 20)]
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [*range(1, 21)]
    assert (folder / "report.html").is_file()


def test_preempted_training_ends_with_the_bytes_of_an_undisturbed_one(chain):
    """The service interrupts the container after the first checkpoint and starts another one."""
    run = good(
        chain.run(
            "train", "--preset", "tiny", "--run-name", "preempted", *TRAIN, "--overrides", '{"train.latents": "chain"}',
            preempt="train/preempted/checkpoints/step_00000002/state.json",
        )
    )  # fmt: skip
    assert [container["preempted"] for container in run.containers("train")] == [True, False]
    starts = [int(step) for step in re.findall(r"start at step (\d+) of 20", run.output)]
    assert starts[0] == 0 and 2 <= starts[1] < 20, run.output  # the step that it was in was finished and written
    undisturbed, preempted = (fingerprints(chain.output / "train" / name) for name in ("chain", "preempted"))
    assert undisturbed == preempted


def fingerprints(folder: Path) -> dict[str, str]:
    """Hash of every file of the last checkpoint, and of the metrics."""
    files = [*(folder / "checkpoints/step_00000020").iterdir(), folder / "metrics.jsonl"]
    return {file.name: sha256(file) for file in files}


def test_predict_tokens_writes_a_person_file(chain):
    state = sorted((chain.state / "volumes" / DATASETS[2]).iterdir())[0].name
    good(chain.run("predict_tokens", *RUN, "--train-run", "chain", "--state-id", state))
    assert (chain.output / "predict_tokens/chain/person.safetensors").is_file()


def test_generate_draws_the_person_of_a_file(chain):
    good(chain.run("generate", *RUN, "--person", "chain", "--prompt", "<person> on a beach", "--count", "2"))
    folder = chain.output / "generate/chain"
    assert {path.name for path in folder.glob("*.png")} == {"seed_0.png", "seed_1.png"}
    assert (folder / "report.html").is_file()


def test_evaluate_reports_on_held_out_states(chain):
    good(chain.run("evaluate", *RUN, "--train-run", "chain", "--source", "dataset"))
    folder = chain.output / "evaluate/chain"
    assert read(folder / "metrics.json")["states"] == 2 and (folder / "report.html").is_file()


def test_verify_finds_the_same_bytes(chain):
    good(chain.run("verify", *RUN, "--train-run", "chain", "--steps", "1"))
    assert read(chain.output / "verify/chain/verify.json")["differences"] == []


def test_tests_run_in_the_container_and_leave_a_report(chain):
    good(chain.run("tests", *RUN, "--select", "test_wrong_type_names_the_field"))
    folder = chain.output / "tests/chain"
    assert 'failures="0"' in (folder / "junit.xml").read_text()
    assert "All tests that ran passed." in (folder / "report.html").read_text()


def test_command_line_ends_with_the_exit_code_of_pytest_in_the_container(chain):
    """5: no test was selected."""
    run = chain.run("tests", "--preset", "tiny", "--run-name", "none", "--select", "nothing_is_called_so")
    assert run.code == 5 and "pytest ended with exit code 5" in run.output, run.output
    assert "exit code 5" in (chain.output / "tests/none/report.html").read_text()

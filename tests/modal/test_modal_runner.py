"""What the app asks Modal for, and how errors reach the user."""

import contextlib
import shutil
import sys
import traceback
from collections.abc import Iterator

import pytest

from harald.config import DATASETS, HF_CACHE, HOUR, MNT_DATASET, MNT_OUTPUT, PYTHON
from harald.errors import ConfigError
from harald.jobs import concise_errors
from harald.modal_runner import HERE_ONLY, JOBS
from harald.runs import sha256
from tests.modal.conftest import REPOSITORY, Cloud, Run

pytestmark = pytest.mark.modal

MISTYPED = ("--preset", "tiny", "--overrides", '{"train.stepz": 3}')
WITHOUT_GPU = {
    "demo_dataset",
    "doctor",
    "download_models",
    "check_dataset",
    "export_encoder",
    "runs",
    "stop",
    "prepare",
}  # prepare's parts do


@pytest.fixture(scope="module")
def refused(cloud: Cloud) -> Run:
    """A job with a mistyped override: it reaches a container, and ends there."""
    return cloud.run("check_dataset", *MISTYPED)


@pytest.fixture(scope="module")
def asked(refused: Run) -> dict:
    """Function -> what was asked for it. Any run creates all functions of the app."""
    return refused.app["functions"]


def test_every_job_is_a_function_of_the_app(asked):
    assert set(asked) == set(JOBS) - HERE_ONLY | {"part"}


def test_only_jobs_that_compute_ask_for_a_gpu(asked):
    assert {name for name, function in asked.items() if not function["gpu"]} == WITHOUT_GPU


def test_one_gpu_type_and_no_fallback(asked):
    """The same seed gives the same bytes only on the same type of GPU."""
    assert {tuple(function["gpu"]) for name, function in asked.items() if name not in WITHOUT_GPU} == {("H200:1",)}


def test_train_may_run_for_a_day_and_is_retried_in_a_fresh_container(asked):
    train = asked["train"]
    assert (train["timeout"], train["retries"], train["single_use_containers"]) == (24 * HOUR, 4, True)


def test_what_cannot_resume_is_not_retried(asked):
    assert {name for name, function in asked.items() if function["retries"]} == {"train", "pretrain_mini", "part"}


def test_no_job_is_left_with_modals_short_default_timeout(asked):
    assert min(function["timeout"] for function in asked.values()) >= HOUR


def test_every_job_gets_the_hugging_face_secret(asked):
    assert {tuple(function["secrets"]) for function in asked.values()} == {("HF_SECRET",)}


def test_data_sets_are_mounted_read_only_and_the_rest_writable(asked):
    expected = {MNT_OUTPUT: False, HF_CACHE: False, **{f"{MNT_DATASET}/{number}": True for number in DATASETS}}
    for function in asked.values():
        assert {path: volume["read_only"] for path, volume in function["volumes"].items()} == expected
        assert {volume["version"] for volume in function["volumes"].values()} == {2}


def test_source_and_report_templates_are_uploaded_and_nothing_compiled(asked):
    files = asked["train"]["files"]
    assert "/root/harald/jobs/train.py" in files
    assert "/root/harald/reporting/templates/page.html" in files
    assert "/root/harald/web/static/page.js" in files
    assert not [file for file in files if file.endswith(".pyc")]


def test_image_pins_python_and_takes_only_packages_whose_hash_is_known(asked):
    lines = "\n".join(asked["train"]["image"])
    assert f"python:{PYTHON}" in lines
    (install,) = (line for line in asked["train"]["image"] if "/.uv/uv pip install" in line)
    assert install.endswith("--require-hashes --requirements /.uv/0/image.lock")
    assert "ENV CUBLAS_WORKSPACE_CONFIG=:4096:8" in lines


@pytest.mark.slow
def test_change_of_code_builds_no_image_and_a_change_of_the_lock_does(cloud, asked, tmp_path):
    def images(changed: str, text: str) -> dict[str, str]:
        file = tmp_path / changed
        file.write_text(file.read_text() + text)
        run = cloud.modal("run", "-m", "harald.modal_runner::check_dataset", *MISTYPED, cwd=tmp_path)
        assert "did you mean 'steps'?" in run.output, run.output
        return {name: function["image_id"] for name, function in run.app["functions"].items() if name != "tests"}

    heavy = shutil.ignore_patterns("*.safetensors", "__pycache__")
    shutil.copytree(REPOSITORY / "harald", tmp_path / "harald", ignore=heavy)
    before = {name: function["image_id"] for name, function in asked.items() if name != "tests"}
    assert images("harald/jobs/train.py", "CHANGED = True\n") == before
    assert (cloud.state / "files" / sha256(tmp_path / "harald/jobs/train.py")).exists()  # it did travel
    assert not set(images("harald/image.lock", "# changed\n").values()) & set(before.values())


def test_mistyped_override_ends_in_advice_without_frames(refused):
    assert refused.code != 0
    assert "did you mean 'steps'?" in refused.output
    assert "Traceback" not in refused.output and "modal_runner.py" not in refused.output, refused.output


@pytest.mark.parametrize(
    ("secrets", "missing"), [((), "HF_SECRET"), (("HF_SECRET=OTHER:x",), "HUGGINGFACE_TOKEN")], ids=["secret", "key"]
)
def test_missing_secret_or_key_stops_before_any_container(cloud, secrets, missing):
    run = cloud.run("doctor", secrets=secrets)
    assert run.code != 0 and missing in run.output
    assert not run.app.get("containers")


def test_unknown_flag_value_is_answered_by_the_command_line(cloud):
    run = cloud.run("doctor", "--preset", "huge")
    assert run.code != 0 and "'huge' is not one of 'full', 'mini', 'tiny'" in run.output
    assert not run.app["functions"]


@pytest.fixture
def no_traceback_limit() -> Iterator[None]:
    yield
    vars(sys).pop("tracebacklimit", None)


@pytest.mark.usefixtures("no_traceback_limit")
def test_bug_keeps_its_frames_in_a_container_that_served_a_user_error():
    with contextlib.suppress(ConfigError), concise_errors():
        raise ConfigError("a wrong flag")
    with pytest.raises(ZeroDivisionError) as caught, concise_errors():
        1 / 0  # noqa: B018
    assert "1 / 0" in "".join(traceback.format_exception(caught.value))

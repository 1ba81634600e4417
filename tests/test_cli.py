"""python -m harald: the flags of the Modal functions, and errors without a traceback."""

import inspect
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from harald.cli import main, parser
from harald.modal_runner import JOBS


@pytest.mark.parametrize("job", JOBS)
def test_job_has_the_flags_and_defaults_of_its_modal_function(job):
    parameters = inspect.signature(JOBS[job]).parameters
    assert vars(parser().parse_args([job])) == {"command": job, **{name: p.default for name, p in parameters.items()}}


@pytest.mark.parametrize("job", JOBS)
def test_flag_has_the_type_of_its_annotation(job):
    for name, kind in typing.get_type_hints(JOBS[job]).items():
        if kind is int:
            given = parser().parse_args([job, "--" + name.replace("_", "-"), "7"])
            assert getattr(given, name) == 7


@pytest.mark.parametrize("job", JOBS)
def test_help_of_every_job_explains_it(job, capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([job, "--help"])
    assert ended.value.code == 0
    assert (inspect.getdoc(JOBS[job]) or "missing").split()[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["doctor", "--preset", "huge"], ["doctor", "--seed", "x"], ["doctor", "--what", "1"], ["dokter"], []]
)
def test_wrong_command_line_is_refused_by_the_parser(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage:" in capsys.readouterr().err


def test_error_that_the_user_can_mend_is_the_whole_message(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--preset", "tiny", "--overrides", '{"train.stepz": 1}'])
    assert ended.value.code == "error: unknown key 'train.stepz' in --overrides\n  fix: did you mean 'steps'?"
    assert not list(tmp_path.iterdir())


def test_process_ends_non_zero_without_a_traceback(tmp_path: Path):
    command = [sys.executable, "-m", "harald", "doctor", "--preset", "tiny", "--run-name", "a"]
    done = subprocess.run(command, env={**os.environ, "HARALD_ROOT": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: not ready:" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "output/doctor/a/doctor.json").is_file()

"""The test suite, in this container."""

import os
import subprocess
import sys
from pathlib import Path

import harald
from harald import runs
from harald.config import Config
from harald.errors import HaraldError
from harald.runtime import Runtime


class TestsFailed(HaraldError):
    """pytest's exit code was not 0."""


def run(runtime: Runtime, config: Config, run_name: str, select: str = "") -> dict:
    """Everything but what needs the modal CLI. select: pytest's -k expression."""
    root = Path(harald.__file__).parents[1]
    if not (root / "tests").is_dir():
        raise TestsFailed(f"there are no tests beside {root / 'harald'}", "run it from a checkout, or through modal")
    folder = runs.open_run(runtime, "tests", run_name, config, select=select)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests",
        "-m",
        "not modal",
        "-p",
        "no:cacheprovider",
        f"--junitxml={folder / 'junit.xml'}",
    ]
    command += ["-k", select] if select else []
    environment = {**os.environ, "HARALD_ROOT": str(folder / "root"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    runs.write_text(folder / "pytest.txt", done.stdout)
    runtime.commit()
    tail = done.stdout.strip().splitlines()[-15:]
    if done.returncode:
        raise TestsFailed(
            f"pytest ended with exit code {done.returncode}:\n    " + "\n    ".join(tail),
            f"see {folder / 'pytest.txt'}",
        )
    return {"exit_code": 0, "summary": tail[-1], "output": str(folder / "pytest.txt")}

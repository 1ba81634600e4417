"""The test suite, in this container; ends with a report of what ran, what failed and what was left out, and why."""

import os
import platform
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch

import harald
from harald import reporting, runs
from harald.config import Config
from harald.errors import HaraldError
from harald.runtime import Runtime

WORKERS = 4  # processes that share the tests, with one GPU for all
SLOWEST = 10
OUTCOMES = ("passed", "failed", "error", "skipped")
LEFT_OUT = "modal"  # mark of the tests that start the modal command line: there is no service for it in a container


class TestsFailed(HaraldError):
    """pytest's exit code was not 0; the command ends with the same one."""


@dataclass(frozen=True)
class Case:
    """One test. why: its failure, or why it was skipped; empty for one that passed."""

    file: str
    name: str
    outcome: str
    seconds: float
    why: str


def run(runtime: Runtime, config: Config, run_name: str, select: str = "") -> dict:
    """Everything but what needs the modal CLI. select: pytest's -k expression. Raises TestsFailed."""
    root = Path(harald.__file__).parents[1]
    if not (root / "tests").is_dir():
        raise TestsFailed(f"there are no tests beside {root / 'harald'}", "run it from a checkout, or through modal")
    folder = runs.open_run(runtime, "tests", run_name, config, select=select)
    junit = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "tests", "harald", "-m", f"not {LEFT_OUT}", "-p", "no:cacheprovider"]
    command += [f"--junitxml={junit}", "-o", "junit_family=xunit1"]
    command += ["-k", select] if select else ["-n", str(min(WORKERS, os.cpu_count() or 1)), "--dist", "loadfile"]
    environment = {**os.environ, "HARALD_ROOT": str(folder / "root"), "PYTHONDONTWRITEBYTECODE": "1"}
    junit.unlink(missing_ok=True)
    done = subprocess.run(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    runs.write_text(folder / "pytest.txt", done.stdout)
    cases = read_cases(junit)
    report = folder / "report.html"
    runs.write_text(report, render(folder.name, cases, done.returncode, done.stdout, select))
    runtime.commit()
    tail = done.stdout.strip().splitlines()[-15:]
    if done.returncode:
        error = TestsFailed(
            f"pytest ended with exit code {done.returncode} on {device()}:\n    " + "\n    ".join(tail),
            f"see {report}, and {folder / 'pytest.txt'} for everything that it said",
        )
        error.exit_code = done.returncode
        raise error
    counts = Counter(case.outcome for case in cases)
    return {
        "exit_code": 0,
        "device": device(),
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "output": str(folder / "pytest.txt"),
        "report": str(report),
    }


def device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"no GPU, CPU ({platform.machine()})"


def read_cases(junit: Path) -> list[Case]:
    """From pytest's own file; none where it ended before it wrote one."""
    if not junit.exists():
        return []
    cases = []
    for element in ElementTree.parse(junit).iter("testcase"):
        outcome, why = "passed", ""
        for kind, name in (("skipped", "skipped"), ("failure", "failed"), ("error", "error")):
            if (found := element.find(kind)) is not None:
                outcome = name
                why = found.get("message", "") if kind == "skipped" else found.text or found.get("message", "")
        file = element.get("file") or element.get("classname", "").replace(".", "/")
        cases.append(Case(file, element.get("name", ""), outcome, float(element.get("time", 0)), why))
    return cases


def render(name: str, cases: list[Case], code: int, said: str, select: str) -> str:
    """The page. said: all that pytest printed."""
    counts = Counter(case.outcome for case in cases)
    files: dict[str, Counter[str]] = {}
    seconds: dict[str, float] = {}
    for case in cases:
        files.setdefault(case.file, Counter())[case.outcome] += 1
        seconds[case.file] = seconds.get(case.file, 0.0) + case.seconds
    return reporting.render(
        "tests",
        run=name,
        code=code,
        device=device(),
        versions={
            "torch": torch.__version__,
            "CUDA": torch.version.cuda or "none",
            "Python": platform.python_version(),
        },
        select=select,
        left_out=LEFT_OUT,
        counts={outcome: counts[outcome] for outcome in OUTCOMES},
        outcomes=OUTCOMES,
        bad=[case for case in cases if case.outcome in ("failed", "error")],
        skipped=Counter(case.why or "no reason given" for case in cases if case.outcome == "skipped").most_common(),
        files=[(file, files[file], seconds[file]) for file in sorted(files)],
        slowest=sorted(cases, key=lambda case: -case.seconds)[:SLOWEST],
        tail="\n".join(said.strip().splitlines()[-40:]),
    )

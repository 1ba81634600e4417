"""The real `modal run -m harald.modal_runner::<job>` against the stand-in (tests/fakemodal)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from harald.config import tiny
from harald.data.manifest import split_of
from tests.fakemodal import sandbox

REPOSITORY = Path(__file__).parents[2]
SECRET = "HF_SECRET=HUGGINGFACE_TOKEN:hf_dummy"
SCENES = ("laughing on a beach", "reading in a library", "angry in the rain", "waving in a park")
LOOKS = (("red hair", "firebrick"), ("blond hair", "khaki"), ("black hair", "black"), ("a green hat", "seagreen"))


@dataclass(frozen=True)
class Run:
    """One ended command: exit code, all that the terminal showed, and what was asked of Modal (STATE/app.json)."""

    code: int
    output: str
    app: dict[str, Any]

    def containers(self, function: str) -> list[dict[str, Any]]:
        return [c for c in self.app.get("containers", []) if c["function"] == function]


@dataclass(frozen=True)
class Cloud:
    """Volumes and uploaded files outlive a command, as they do on Modal."""

    state: Path

    @property
    def output(self) -> Path:
        return self.state / "volumes" / "harald-output"

    def run(self, job: str, *flags: str, secrets: tuple[str, ...] = (SECRET,), preempt: str = "") -> Run:
        """`modal run` of one job.

        preempt: a file of the output volume, or a glob; when it appears, the first container of the job is interrupted.
        "part:" before it means the first container of a fan-out.
        """
        function, _, file = preempt.rpartition(":")
        disturbed = ("--preempt", f"{function or job}:harald-output/{file}") if preempt else ()
        return self.modal("run", "-m", f"harald.modal_runner::{job}", *flags, secrets=secrets, service=disturbed)

    def modal(
        self,
        *words: str,
        secrets: tuple[str, ...] = (SECRET,),
        service: tuple[str, ...] = (),
        cwd: Path = REPOSITORY,
    ) -> Run:
        """One command of the real `modal` program. service: flags of the stand-in."""
        report = self.state / "app.json"
        report.unlink(missing_ok=True)
        command = [sys.executable, "-m", "tests.fakemodal", "--state", str(self.state), *service]
        command += [part for secret in secrets for part in ("--secret", secret)]
        command += ["--container-env", "OMP_NUM_THREADS=1", "--container-env", "HF_HUB_OFFLINE=1"]
        command += ["--", sys.executable, "-m", "modal", *words]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
        app = json.loads(report.read_text()) if report.exists() else {}
        return Run(done.returncode, done.stdout + done.stderr, app)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One state for all tests of a module."""
    if reason := sandbox.why_impossible():
        pytest.skip(f"containers cannot be started: {reason}")
    yield Cloud(tmp_path_factory.mktemp("modal"))


def write_states(base: Path, first: int, training: int, validation: int, held_out: int = 0) -> list[str]:
    """Sketches in the data set's format under a base folder: so many states of each split. Returns the state_ids."""
    wanted, written = {"train": training, "validation": validation, "held_out": held_out}, []
    number = first
    while any(wanted.values()):
        state_id = f"seed_{number}"
        split = split_of(state_id, tiny().data)
        number += 1
        if not wanted[split]:
            continue
        wanted[split] -= 1
        write_state(base / state_id, number)
        written.append(state_id)
    return written


def write_state(folder: Path, number: int) -> None:
    """Two photos and two comic pictures of one person: same look, other scene."""
    folder.mkdir(parents=True)
    text, colour = LOOKS[number % len(LOOKS)]
    for view, scene in enumerate(SCENES):
        domain = "comic" if view % 2 else "photo"
        name = folder / f"{domain}_view_{view:02d}"
        picture = Image.new("RGB", (64, 64), ("lightblue", "tan", "grey", "lightgreen")[view])
        pen = ImageDraw.Draw(picture)
        pen.ellipse((16, 14, 48, 54), fill="bisque")
        pen.pieslice((12, 6, 52, 46), 180, 360, fill=colour)
        pen.line((26, 40 + view, 38, 40 + number % 5), fill="brown", width=2)
        picture.save(name.with_suffix(".png"))
        name.with_suffix(".txt").write_text(f"{domain} of a person with {text}, {scene}\n")

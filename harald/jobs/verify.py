"""Re-run a few steps of a training run and compare the bytes."""

import dataclasses
import json
import logging
import shutil
import tempfile
from pathlib import Path

from harald import runs
from harald.config import Config
from harald.errors import ConfigError, TrainingError
from harald.jobs.train import fit
from harald.runtime import Runtime, Session
from harald.training.checkpoint import STATE, list_checkpoints

log = logging.getLogger(__name__)


def run(runtime: Runtime, config: Config, run_name: str, train_run: str = "", steps: int = 3) -> dict:
    """Two proofs: `steps` steps from the start, twice, are the same bytes, and the run's own first steps are too.

    Where the run keeps two checkpoints, the stretch between the last two is repeated and must end in the same files.
    Raises TrainingError that names what differs.
    """
    if steps < 1:
        raise ConfigError(f"--steps is {steps}", "use 1 or more")
    source = runs.find_run(runtime, "train", train_run)
    folder = runs.open_run(runtime, "verify", run_name, config, train_run=source.name, steps=steps)
    original = runs.load_config(source)
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("first", "second", "stretch"):
            runs.write_bytes(Path(scratch, name, runs.INPUTS), (source / runs.INPUTS).read_bytes())
        first, second = (repeat(runtime, original, Path(scratch, name), steps) for name in ("first", "second"))
        differences = compare("two fresh runs", first, second) + compare_metrics(source, first, steps)
        stretch = last_stretch(source)
        if stretch:
            differences += repeat_stretch(runtime, original, Path(scratch, "stretch"), *stretch)
    result = {"run": source.name, "steps": steps, "stretch": [p.name for p in stretch], "differences": differences}
    runs.write_json(folder / "verify.json", {**result, **runs.fingerprint()})
    if differences:
        raise TrainingError(
            f"not the same bytes: {'; '.join(differences)}", "compare fingerprint.json of both runs (GPU, versions)"
        )
    return {**result, "same_bytes": True}


def repeat(runtime: Runtime, config: Config, folder: Path, last: int, keep: int = 1) -> Path:
    """A run of its own in a scratch folder, up to step `last`."""
    train = dataclasses.replace(
        config.train, steps=last, checkpoint_every=last, sample_every=last, keep_checkpoints=keep
    )
    folder.mkdir(parents=True, exist_ok=True)
    local = dataclasses.replace(runtime, commit=lambda: None, session=Session())
    fit(local, dataclasses.replace(config, train=train), folder)
    return folder


def last_stretch(source: Path) -> list[Path]:
    """The last two checkpoints, or nothing if fewer were kept."""
    kept = list_checkpoints(source / "checkpoints")
    return kept[-2:] if len(kept) > 1 else []


def repeat_stretch(runtime: Runtime, config: Config, scratch: Path, start: Path, end: Path) -> list[str]:
    shutil.copytree(start, scratch / "checkpoints" / start.name)
    last = json.loads((end / STATE).read_text())["step"]
    repeat(runtime, config, scratch, last, keep=2)
    again = scratch / "checkpoints" / end.name
    return [
        f"{start.name} to {end.name}: {file.name}"
        for file in sorted(end.iterdir())
        if runs.sha256(file) != runs.sha256(again / file.name)
    ]


def compare(what: str, first: Path, second: Path) -> list[str]:
    """Files of two runs whose bytes differ (trackio's copies carry times and are left out)."""
    names = sorted(
        p.relative_to(first) for p in first.rglob("*") if p.is_file() and p.relative_to(first).parts[0] != "trackio"
    )
    return [
        f"{what}: {n}" for n in names if not (second / n).exists() or runs.sha256(first / n) != runs.sha256(second / n)
    ]


def compare_metrics(source: Path, fresh: Path, steps: int) -> list[str]:
    old, new = ((folder / "metrics.jsonl").read_text().splitlines()[:steps] for folder in (source, fresh))
    return [f"metrics.jsonl line {i + 1}" for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]

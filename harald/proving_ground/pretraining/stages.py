"""The stages of the pretraining: one folder `weights` goes in, one comes out, after every segment.

A segment is a pure function of (weights, config, stage, number): the next one always starts from what the folder holds,
rounded to bfloat16, so that a resumed run is equal to an unbroken one.
"""

import contextlib
import importlib
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from harald import determinism
from harald.config import Config, Pretrain
from harald.errors import ConfigError, did_you_mean
from harald.proving_ground.measure.origin import device
from harald.proving_ground.pretraining import base, weights
from harald.proving_ground.pretraining.cards import write_cards
from harald.proving_ground.pretraining.segment import Segment
from harald.runs import write_json
from harald.settings import config_hash
from harald.world import ALONE, World, launch

log = logging.getLogger(__name__)

STAGES = ("vae", "base", "judge", "vision")  # modules of this folder, each with run(segment) -> metrics
AFTER = {"base": "vae"}  # the latents that the base is trained on must not change any more
PARTS = {"base": base.PARTS}  # of a stage's batches: at most so many GPUs can share them
PROGRESS, CURVES = "progress.json", "curves"


def checked(config: Config, stage: str, gpus: int = 1) -> Pretrain:
    """The pretraining of the config. Raises ConfigError."""
    if config.pretrain is None:
        raise ConfigError(f"preset {config.preset!r} has nothing to pretrain", "use --preset mini")
    if stage not in STAGES:
        raise ConfigError(f"--stage is {stage!r}", did_you_mean(stage, STAGES))
    most = PARTS.get(stage, 1)
    if not 1 <= gpus <= most:
        raise ConfigError(f"--gpus is {gpus}", f"stage {stage!r} can share its batches among 1 to {most}")
    if torch.cuda.is_available() and gpus > torch.cuda.device_count():
        raise ConfigError(f"--gpus is {gpus}, and here are {torch.cuda.device_count()}", "use fewer")
    return config.pretrain


def run_segments(
    config: Config, folder: Path, stage: str, segments: int, gpus: int = 1, confirm: Callable[[], None] = lambda: None
) -> dict:
    """Run a stage on `folder` until `segments` of its segments are done, 0 for all. Returns the stage's progress.

    gpus: changes no byte. confirm: raises, before the folder is replaced, where it belongs to somebody else by now.
    """
    total = getattr(checked(config, stage, gpus), stage).segments
    before = AFTER.get(stage)
    if before and not is_finished(config, folder, before):
        raise ConfigError(f"stage {stage!r} needs a finished {before!r}", f"run pretrain_mini --stage {before} first")
    done = progress(folder).get(stage, {}).get("segments", 0)
    if done >= total:
        log.info("stage %s is finished: all %d segments are done", stage, total)
    for number in range(done, min(total, segments or total)):
        log.info("stage %s, segment %d of %d", stage, number + 1, total)
        run_segment(config, folder, stage, number, gpus, confirm)
    return {"segments_of_stage": total, "finished": is_finished(config, folder, stage), **progress(folder)[stage]}


def run_segment(config: Config, folder: Path, stage: str, number: int, gpus: int, confirm: Callable[[], None]) -> None:
    """Replace `folder` by what it is after the segment; a segment that breaks leaves it as it was."""
    assert config.pretrain is not None
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    if folder.exists():
        shutil.copytree(folder, scratch)
    try:
        weights.write_untrained(scratch, stage, config.seed, config.pretrain)
        (scratch / CURVES).mkdir(parents=True, exist_ok=True)
        work = (config, scratch, stage, number)
        metrics = train_segment(ALONE, *work) if gpus == 1 else launch(gpus, train_segment, *work)
        log.info("stage %s, segment %d, held-out: %s", stage, number + 1, metrics)
        done = progress(scratch)
        before = done.get(stage, {}).get("before", [])
        note = {
            "segments": number + 1, "seed": config.seed, "config_hash": config_hash(config), "metrics": metrics,
            "device": device() if gpus == 1 else f"{gpus} x {device()}", "before": before,
        }  # fmt: skip
        write_json(scratch / PROGRESS, {**done, stage: note})
        write_cards(scratch, progress(scratch), config)
        confirm()
        replace(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def begin_again(folder: Path, stage: str) -> None:
    """Train a stage once more, from the weights that it has: its segments count from 0, its note stays in `before`.

    It was trained before.
    """
    done = progress(folder)
    note = done[stage]
    before = [*note.get("before", []), {name: value for name, value in note.items() if name != "before"}]
    done[stage] = {**note, "segments": 0, "before": before}
    write_json(folder / PROGRESS, done)


def train_segment(world: World, config: Config, folder: Path, stage: str, number: int) -> dict[str, float]:
    """Train the segment in `folder`, which the first of all processes alone changes. Returns the held-out metrics."""
    logging.getLogger("harald").setLevel(logging.INFO if world.rank == 0 else logging.WARNING)
    determinism.enable(config.seed, config.deterministic)
    torch._inductor.config.deterministic = config.deterministic  # no choice of kernels by measured time
    with contextlib.ExitStack() as stack:
        if world.rank > 0:
            copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harald-segment-"))) / "weights"
            folder = shutil.copytree(folder, copy)
        world.meet()

        def log_row(row: dict) -> None:
            with (folder / CURVES / f"{stage}.jsonl").open("a") as file:
                file.write(json.dumps({"segment": number, **row}) + "\n")

        run = importlib.import_module(f"{__package__}.{stage}").run
        return run(Segment(stage, number, config, folder, log_row, world))


def replace(folder: Path, new: Path) -> None:
    """Put a new folder in the place of an old one; a kill between the two renames is mended by `recover`."""
    old = _old(folder)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back the old folder where a `replace` was killed half way, and remove what a killed segment left."""
    old = _old(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for rest in [*folder.parent.glob(f".{folder.name}.*.tmp"), *([old] if old.exists() else [])]:
        shutil.rmtree(rest)


def progress(folder: Path) -> dict:
    """Stage -> {"segments": done, "seed", "config_hash", "device", "metrics": of the last held-out check}."""
    file = folder / PROGRESS
    return json.loads(file.read_text()) if file.exists() else {}


def is_finished(config: Config, folder: Path, stage: str) -> bool:
    return progress(folder).get(stage, {}).get("segments", 0) >= getattr(checked(config, stage), stage).segments


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")

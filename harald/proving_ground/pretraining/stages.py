"""The stages of the pretraining: one folder `weights` goes in, one comes out, after every segment.

A segment is a pure function of (weights, config, stage, number): the next one always starts from what the folder holds,
rounded to bfloat16, so that a resumed run is equal to an unbroken one.
"""

import importlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import torch

from harald.config import Config, Pretrain
from harald.errors import ConfigError, did_you_mean
from harald.proving_ground.measure.origin import device
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.cards import write_cards
from harald.proving_ground.pretraining.segment import Segment
from harald.runs import write_json
from harald.settings import config_hash

log = logging.getLogger(__name__)

STAGES = ("vae", "base", "judge", "vision")  # modules of this folder, each with run(segment) -> metrics
AFTER = {"base": "vae"}  # the latents that the base is trained on must not change any more
PROGRESS, CURVES = "progress.json", "curves"


def checked(config: Config, stage: str) -> Pretrain:
    """The pretraining of the config. Raises ConfigError."""
    if config.pretrain is None:
        raise ConfigError(f"preset {config.preset!r} has nothing to pretrain", "use --preset mini")
    if stage not in STAGES:
        raise ConfigError(f"--stage is {stage!r}", did_you_mean(stage, STAGES))
    return config.pretrain


def run_segments(
    config: Config, folder: Path, stage: str, segments: int, confirm: Callable[[], None] = lambda: None
) -> dict:
    """Run a stage on `folder` until `segments` of its segments are done, 0 for all. Returns the stage's progress.

    confirm: raises, before the folder is replaced, where it belongs to somebody else by now.
    """
    total = getattr(checked(config, stage), stage).segments
    before = AFTER.get(stage)
    if before and not is_finished(config, folder, before):
        raise ConfigError(f"stage {stage!r} needs a finished {before!r}", f"run pretrain_mini --stage {before} first")
    done = progress(folder).get(stage, {}).get("segments", 0)
    if done >= total:
        log.info("stage %s is finished: all %d segments are done", stage, total)
    for number in range(done, min(total, segments or total)):
        log.info("stage %s, segment %d of %d", stage, number + 1, total)
        run_segment(config, folder, stage, number, confirm)
    return {"segments_of_stage": total, "finished": is_finished(config, folder, stage), **progress(folder)[stage]}


def run_segment(config: Config, folder: Path, stage: str, number: int, confirm: Callable[[], None]) -> None:
    """Replace `folder` by what it is after the segment; a segment that breaks leaves it as it was."""
    assert config.pretrain is not None
    torch._inductor.config.deterministic = config.deterministic  # no choice of kernels by measured time
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
    if folder.exists():
        shutil.copytree(folder, scratch)
    try:
        weights.write_untrained(scratch, stage, config.seed, config.pretrain)
        curve = scratch / CURVES / f"{stage}.jsonl"
        curve.parent.mkdir(parents=True, exist_ok=True)

        def log_row(row: dict) -> None:
            with curve.open("a") as file:
                file.write(json.dumps({"segment": number, **row}) + "\n")

        metrics = importlib.import_module(f"{__package__}.{stage}").run(
            Segment(stage, number, config, scratch, log_row)
        )
        log.info("stage %s, segment %d, held-out: %s", stage, number + 1, metrics)
        note = {
            "segments": number + 1, "seed": config.seed, "config_hash": config_hash(config), "device": device(),
            "metrics": metrics,
        }  # fmt: skip
        write_json(scratch / PROGRESS, {**progress(scratch), stage: note})
        write_cards(scratch, progress(scratch), config)
        confirm()
        replace(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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

"""Where a training begins that does not begin from nothing: train.init_from."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from harald import runs
from harald.config import Config
from harald.encoder.model import WEIGHTS, PersonEncoder
from harald.errors import ConfigError, TrainingError
from harald.jobs.loading import find_checkpoint
from harald.runtime import Runtime
from harald.training.checkpoint import list_checkpoints

log = logging.getLogger(__name__)

ORIGIN = "init_from"  # among the run's inputs: {"checkpoint": "<run>/step_<n>", "sha256": of its weights}


def origin(runtime: Runtime, config: Config, run_name: str) -> dict[str, Any]:
    """The run's inputs: which checkpoint its weights begin with. Empty where they begin untrained.

    A run that has a checkpoint of its own keeps what it began with, however long the other one was trained since.
    Raises ConfigError if there is no such checkpoint, or one that predicts other tokens.
    """
    if not config.train.init_from:
        return {}
    own = runtime.output / "train" / runs.safe_name(run_name, "--run-name") if run_name else None
    if own and list_checkpoints(own / "checkpoints") and recorded(own):
        return {ORIGIN: recorded(own)}
    source = runs.find_run(runtime, "train", config.train.init_from)
    checkpoint, trained = find_checkpoint(source)
    expect_alike(source.name, trained, config)
    name = f"{source.name}/{checkpoint.name}"
    return {ORIGIN: {"checkpoint": name, "sha256": runs.sha256(checkpoint / WEIGHTS)}}


def recorded(folder: Path) -> dict[str, str] | None:
    """What a run's folder says that its weights began with."""
    file = folder / runs.INPUTS
    return json.loads(file.read_text()).get(ORIGIN) if file.exists() else None


def expect_alike(source: str, trained: Config, config: Config) -> None:
    """Raises ConfigError unless the weights mean the same in both: the resolution of references may differ."""

    def meaning(of: Config) -> dict[str, Any]:
        encoder = dataclasses.asdict(of.encoder)
        encoder.pop("max_pixels")
        return {
            **{f"encoder.{name}": value for name, value in encoder.items()},
            "injection.point": of.injection.point,
            "models.base": of.models.base.repo,
            "models.encoder": of.models.encoder.repo,
        }

    before, after = meaning(trained), meaning(config)
    if odd := [f"{name} {before[name]!r} -> {after[name]!r}" for name in before if before[name] != after[name]]:
        raise ConfigError(
            f"train.init_from is {source!r}, whose weights mean something else here: {'; '.join(odd)}",
            "use that run's values, or leave train.init_from empty",
        )


def begin(runtime: Runtime, folder: Path, encoder: PersonEncoder) -> None:
    """Put the weights in place that the run's folder names, if it names some. Raises TrainingError if they changed."""
    found = recorded(folder)
    if not found:
        return
    weights = runtime.output / "train" / found["checkpoint"].replace("/", "/checkpoints/") / WEIGHTS
    if not weights.exists() or runs.sha256(weights) != found["sha256"]:
        raise TrainingError(
            f"{weights}, which this run began with, is gone or has changed",
            "start a new run: it takes the best checkpoint of today",
        )
    encoder.load_trained_state(load_file(weights))
    log.info("the weights begin as those of %s", found["checkpoint"])

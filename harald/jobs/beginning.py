"""Where a training begins that does not begin from nothing: train.init_from."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from harald import hub, runs
from harald.config import Config, ModelRef
from harald.encoder.model import WEIGHTS, PersonEncoder, meaning
from harald.errors import ConfigError, TrainingError
from harald.jobs.loading import ORIGIN, ensure, find_checkpoint, name_of, recorded, training_of
from harald.runtime import Runtime
from harald.training.checkpoint import list_checkpoints

log = logging.getLogger(__name__)

TRAINED = "models.trained"  # in train.init_from: that encoder, no run


def origin(runtime: Runtime, config: Config, run_name: str) -> dict[str, Any]:
    """The run's inputs: what its weights begin with. Empty where they begin untrained.

    A run that has a checkpoint of its own keeps what it began with, however long the other one was trained since.
    Raises ConfigError if there is no such encoder, or one that predicts other tokens; ModelError if it is not cached.
    """
    if not config.train.init_from:
        return {}
    if not run_name:
        raise ConfigError(
            f"train.init_from is {config.train.init_from!r} in a run without a name",
            "add --run-name: started again, it then begins with the same weights",
        )
    own = runtime.output / "train" / runs.safe_name(run_name, "--run-name")
    if list_checkpoints(own / "checkpoints") and recorded(own):
        return {ORIGIN: recorded(own)}
    source, folder = found(runtime, config)
    expect_alike(name_of(runtime.hf_cache, source), meaning(folder), config)
    training = training_of(runtime.hf_cache, source)
    return {
        ORIGIN: {
            "checkpoint": name_of(runtime.hf_cache, source),
            "sha256": runs.sha256(folder / WEIGHTS),
            "steps": training.step if training else 0,
        }
    }


def found(runtime: Runtime, config: Config) -> tuple[Path | ModelRef, Path]:
    """What train.init_from names, and the folder of its weights."""
    if config.train.init_from != TRAINED:
        source = runs.find_run(runtime, "train", config.train.init_from)
        return source, find_checkpoint(source)[0]
    if not config.models.trained:
        raise ConfigError(
            f"train.init_from is {TRAINED!r}, and the configuration has none",
            """name its repository: --overrides '{"models.trained": {"repo": ...}}'""",
        )
    ensure(runtime.hf_cache, config.models.trained)
    return config.models.trained, hub.snapshot(runtime.hf_cache, config.models.trained)


def expect_alike(source: str, before: dict[str, Any], config: Config) -> None:
    """Raises ConfigError unless the weights mean the same in both: the resolution of references may differ."""
    after = {
        **{f"encoder.{name}": value for name, value in dataclasses.asdict(config.encoder).items()},
        "injection.point": config.injection.point,
        "models.base": config.models.base.repo,
        "models.encoder": config.models.encoder.repo,
    }
    after.pop("encoder.max_pixels")
    if odd := [f"{name} {value!r} -> {after[name]!r}" for name, value in before.items() if value != after.get(name)]:
        raise ConfigError(
            f"train.init_from is {source!r}, whose weights mean something else here: {'; '.join(odd)}",
            "use its values, or leave train.init_from empty",
        )


def begin(runtime: Runtime, config: Config, folder: Path, encoder: PersonEncoder) -> None:
    """Put the weights in place that the run's folder names, if it names some. Raises TrainingError if they changed."""
    known = recorded(folder)
    if not known:
        return
    if config.train.init_from == TRAINED:
        weights = found(runtime, config)[1] / WEIGHTS
    else:
        weights = runtime.output / "train" / known["checkpoint"].replace("/", "/checkpoints/") / WEIGHTS
    if not weights.exists() or runs.sha256(weights) != known["sha256"]:
        raise TrainingError(
            f"{weights}, which this run began with, is gone or has changed",
            "start a new run: it takes the best checkpoint of today",
        )
    encoder.load_trained_state(load_file(weights))
    log.info("the weights begin as those of %s", known["checkpoint"])

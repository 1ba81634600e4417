"""Train the small models of the mini preset from nothing, on synthetic persons, a few minutes at a time."""

import logging
import os
import shutil
from pathlib import Path

from harald import runs
from harald.config import Config
from harald.errors import ConfigError
from harald.proving_ground.mini_models import SHIPPED
from harald.proving_ground.pretraining import stages
from harald.runtime import Runtime

log = logging.getLogger(__name__)

# Stage -> the metric of its held-out check that the run's status shows, and whether less of it is better.
SCORES = {
    "vae": ("psnr", False), "base": ("flow_t0.5", True), "judge": ("identity", False), "vision": ("token_loss", True),
}  # fmt: skip


def run(
    runtime: Runtime, config: Config, run_name: str, stage: str, segments: int = 0, weights: str = "", gpus: int = 1,
    again: bool = False,
) -> dict:  # fmt: skip
    """Train a stage on the run's own weights until `segments` of its segments are done (0: all); what is done stays.

    weights: the folder that a new run starts from; empty: the weights of the package if it has any, else random ones.
    gpus: of this machine, that share the batches of stage base. again: the run, which is a new one and of this stage
    alone, trains it once more, from the weights that it begins with.
    """
    stages.checked(config, stage, gpus)
    if segments < 0:
        raise ConfigError(f"--segments is {segments}", "use 1 or more, or 0 for all of the stage")
    inputs = {"again": stage} if again else {}
    run_folder = runs.open_run(runtime, "pretrain_mini", run_name, config, **inputs)
    folder = run_folder / "weights"
    stages.recover(folder)
    if not folder.exists():
        begin(folder, weights, shipped=stages.checked(config, stage).sizes == "trained", again=stage if again else "")
    runtime.commit()
    total = getattr(stages.checked(config, stage), stage).segments
    goal, done = min(total, segments or total), stages.progress(folder).get(stage, {}).get("segments", 0)
    result: dict = {"segments": done}
    runtime.session.progress(min(done, goal), goal, "segment")
    for number in range(min(done + 1, goal), goal + 1):  # where all is done: the last one again, which does nothing
        if runtime.session.stopping:
            log.info("stopped before segment %d of %d; the same command goes on from there", number, goal)
            break
        result = stages.run_segments(config, folder, stage, number, gpus, runtime.session.check)
        runtime.session.progress(number, goal, "segment")
        name, lower_is_better = SCORES[stage]
        if name in result["metrics"]:
            runtime.session.score(name, result["metrics"][name], lower_is_better)
        runtime.commit()
    return {"run": run_folder.name, "stage": stage, "folder": str(folder), **result}


def begin(folder: Path, weights: str, shipped: bool, again: str = "") -> None:
    """Copy the weights that the run starts from. again: a stage to train once more. Raises ConfigError."""
    source = Path(weights) if weights else SHIPPED
    found = (weights or shipped) and (source / stages.PROGRESS).exists()
    if again and not (found and again in stages.progress(source)):
        raise ConfigError(f"--again: there is no trained stage {again!r} to begin from", "leave --again out")
    if found:
        part = folder.with_name(f".{folder.name}.begin.tmp")
        shutil.copytree(source, part)
        if again:
            stages.begin_again(part, again)
        os.replace(part, folder)
    elif weights:
        raise ConfigError(f"--weights {weights} holds no {stages.PROGRESS}", "name the folder `weights` of a run")

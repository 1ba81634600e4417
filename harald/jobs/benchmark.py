"""What training and drawing cost on this machine, against what one would use instead."""

import dataclasses
import functools
import logging
import tempfile
from pathlib import Path
from typing import Literal

from harald import determinism, runs
from harald.base.qwen_image import QwenImage
from harald.benchmark import drawing, gpus, memory, roofline, same_bytes, shapes, table, training
from harald.benchmark.bars import BARS
from harald.benchmark.bench import Bench, Measured, Part, forget, made_up
from harald.benchmark.clock import FAILURES, matrix_rate, said
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.errors import ConfigError, HaraldError, did_you_mean
from harald.evaluation.bar import Origin
from harald.jobs.loading import base_model, new_encoder
from harald.proving_ground.measure import origin
from harald.records import State
from harald.runtime import Runtime

log = logging.getLogger(__name__)

PARTS: dict[str, Part] = {
    "train": training.part,
    "draw": drawing.part,
    "verify": same_bytes.part,
    "memory": memory.drawing,
    "memory_train": memory.training,
    "roofline": roofline.part,
    "fusions": same_bytes.fusions,
    "gpus": gpus.part,
}
DEFAULT = "train,draw"
SIDE = 8192  # of the matrices that tell the machine's rate
Weights = Literal["random", "cache"]


class Unmeasured(HaraldError):
    """A part of the benchmark failed; the others are written."""


def run(
    runtime: Runtime, config: Config, run_name: str, only: str = "", rounds: int = 3, weights: Weights = "random",
    into: str = "",
) -> dict:  # fmt: skip
    """Times in turn, `rounds` times each. only: some of PARTS, comma-separated. weights: random ones of the published
    sizes, or the cache's (presets mini and tiny: always these). into: a file that the bars' rows and the tables join,
    and with it the page of the documentation beside it. Everything is written as soon
    as it is there.

    Raises ConfigError, and Unmeasured at the end if a part failed.
    """
    parts = [name.strip() for name in (only or DEFAULT).split(",")]
    for name in parts:
        if name not in PARTS:
            raise ConfigError(f"--only names the part {name!r}", did_you_mean(name, PARTS))
    if rounds < 1:
        raise ConfigError(f"--rounds is {rounds}", "use 1 or more")
    folder = runs.open_run(runtime, "benchmark", run_name, config, only=only, rounds=rounds, weights=weights)
    device, here = determinism.device(), origin.here()
    rate = matrix_rate(device, determinism.dtype(config.dtype), SIDE if device.type == "cuda" else 512)
    log.info("%.1f TFLOP/s in products of matrices", rate / 1e12)
    failed, short, rows = dict[str, str](), dict[str, None](), list[str]()
    with tempfile.TemporaryDirectory() as scratch:
        states = made_up(Path(scratch), config)
        for name in parts:
            try:
                for measured in PARTS[name](make_bench(runtime.hf_cache, config, weights, rounds, rate, states)):
                    rows = note(folder, name, measured, here, config, into)
                    runtime.commit()
                short |= dict.fromkeys(rows)
            except FAILURES as error:
                failed[name] = said(error)
                log.exception("part %s failed", name)
                del error  # its frames hold models
            forget(device)
    if failed:
        raise Unmeasured(
            "; ".join(f"{name}: {why}" for name, why in failed.items()), f"what was measured lies in {folder}"
        )
    return {"run": folder.name, "tables": str(folder), "short": list(short)}


def make_bench(
    cache: Path, config: Config, weights: Weights, rounds: int, rate: float, states: list[State]
) -> Bench:  # fmt: skip
    """In any process. Its models are made when they are asked for."""
    device, dtype, models = determinism.device(), determinism.dtype(config.dtype), config.models

    def base() -> QwenImage:
        if weights == "cache" or models.base.recipe:
            return base_model(cache, config, as_published=True)
        log.info("random weights of the sizes of %s", models.base.repo)
        return shapes.random_base(models.base, device, dtype, config.seed)

    def encoder(base: QwenImage) -> PersonEncoder:
        if weights == "cache" or models.encoder.recipe:
            return new_encoder(cache, config, base)
        return shapes.random_encoder(config, base)

    again = functools.partial(make_bench, cache, config, weights, rounds, rate, states)
    return Bench(config, base, encoder, device, rate, rounds, states, again)


def note(folder: Path, name: str, measured: Measured, here: Origin, config: Config, into: str) -> list[str]:
    """Write a part's times, rows and tables. Returns the bars that it measured and that fall short."""
    rows = table.bar_rows(measured.bars, here, config.seed, measured.notes)
    timings = {arm: dataclasses.asdict(timing) for arm, timing in measured.timings.items()}
    raw = {arm: dataclasses.asdict(timing) for arm, timing in measured.facts.get("raw", {}).items()}
    facts = {**measured.facts, **({"raw": raw} if raw else {})}
    runs.write_json(folder / f"{name}.json", {"timings": timings, "bars": rows, **facts})
    runs.write_text(folder / f"{name}.md", measured.text + "\n")
    if into:
        table.merge_into(Path(into), rows, here, config.seed, {name: measured.text})
    for line in measured.text.splitlines():
        log.info("%s", line)
    return [row["name"] for row, bar in zip(rows, BARS, strict=True) if bar in measured.bars and not row["met"]]

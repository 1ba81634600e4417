"""What training and drawing cost on this machine, against what one would use instead."""

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from harald import determinism, runs
from harald.base.float8 import to_float8
from harald.base.qwen_image import QwenImage
from harald.benchmark import shapes, table
from harald.benchmark.clock import Timing, in_turn, matrix_rate
from harald.benchmark.drawing import Pictures
from harald.benchmark.training import Steps, deviation
from harald.config import Config
from harald.data.images import load_picture
from harald.data.index import states_for
from harald.encoder.model import PersonEncoder
from harald.errors import ConfigError, did_you_mean
from harald.jobs.loading import base_model, new_encoder
from harald.proving_ground.measure import origin
from harald.records import State
from harald.runtime import Runtime

log = logging.getLogger(__name__)

PARTS = ("train", "draw")
REFERENCES, EDITS = (1, 2, 3, 4, 8), (1, 3)
STATES, VIEWS = 4, 8  # of the pictures that a step is measured on
SIDE = 8192  # of the matrices that tell the machine's rate
PROMPT = (
    "photo of <person>, half portrait, laughing, head turned to the left, on a beach at dusk, warm light from the "
    "side, waves and a parasol in the background, shallow depth of field"
)
Weights = Literal["random", "cache"]


def run(
    runtime: Runtime, config: Config, run_name: str, only: str = "", rounds: int = 3, weights: Weights = "random",
    into: str = "",
) -> dict:  # fmt: skip
    """Times in turn, `rounds` times each. only: parts of PARTS, comma-separated. weights: random ones of the published
    sizes, or the cache's (presets mini and tiny: always these). into: a file that the bars' rows join.
    """
    parts = [name.strip() for name in only.split(",")] if only else list(PARTS)
    for name in parts:
        if name not in PARTS:
            raise ConfigError(f"--only names the part {name!r}", did_you_mean(name, PARTS))
    if rounds < 1:
        raise ConfigError(f"--rounds is {rounds}", "use 1 or more")
    folder = runs.open_run(runtime, "benchmark", run_name, config, only=only, rounds=rounds, weights=weights)
    base, encoder = models(runtime, config, weights)
    device, here = base.device, origin.here()
    rate = matrix_rate(device, base.dtype, SIDE if device.type == "cuda" else 512)
    log.info("%.1f TFLOP/s in products of matrices", rate / 1e12)
    timings: dict[str, Timing] = {}
    with tempfile.TemporaryDirectory() as scratch:
        states = made_up(Path(scratch), config)
        one = dataclasses.replace(config, train=dataclasses.replace(config.train, states_per_batch=1))
        steps = Steps(base, encoder, states, one) if "train" in parts else None
        if steps:
            timings |= in_turn(arms(steps.arms(), device), rounds, device)
        pictures = Pictures(base, encoder, [load_picture(v.image) for v in states[0].views], config)
        if "draw" in parts:
            timings |= in_turn(arms(pictures.arms(REFERENCES, EDITS), device), rounds, device)
        flops, samples = (steps.flops(), steps.samples) if steps else (0, 0)
        exact = steps.token_gradient() if steps else None
        log.info("%d layers in float8 from here on", to_float8(base.transformer.transformer_blocks))
        gradients = {}
        if steps and exact is not None:
            gradients = deviation(exact, steps.token_gradient(), config.encoder.groups)
            log.info("gradient of the tokens in float8, cosine and norm against %s: %s", base.dtype, gradients)
        later = (steps.float8_arms() if steps else {}) | (pictures.float8_arms() if "draw" in parts else {})
        timings |= in_turn(arms(later, device), rounds, device)
    rows = table.bar_rows(table.measured(timings, flops, rate), here, config.seed)
    text = table.markdown(timings, samples, rate)
    facts = {
        "rate": rate, "flops": flops, "samples": samples, "rounds": rounds, "weights": weights, "bars": rows,
        "float8_gradients": gradients,
        "timings": {name: dataclasses.asdict(timing) for name, timing in timings.items()},
    }  # fmt: skip
    runs.write_json(folder / "benchmark.json", facts)
    runs.write_text(folder / "benchmark.md", text + "\n")
    if into:
        table.merge_into(Path(into), rows, here, config.seed)
    for line in text.splitlines():
        log.info("%s", line)
    return {
        "run": folder.name,
        "table": str(folder / "benchmark.md"),
        "short": [r["name"] for r in rows if not r["met"]],
    }


def arms(all_of_them: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Without a GPU there is no compiler to measure."""
    return all_of_them if device.type == "cuda" else {n: a for n, a in all_of_them.items() if "compiled" not in n}


def models(runtime: Runtime, config: Config, weights: Weights) -> tuple[QwenImage, PersonEncoder]:
    device, dtype = determinism.device(), determinism.dtype(config.dtype)
    if weights == "cache" or config.models.base.recipe:
        base = base_model(runtime.hf_cache, config, as_published=True)
        return base, new_encoder(runtime.hf_cache, config, base)
    log.info("random weights of the sizes of %s and %s", config.models.base.repo, config.models.encoder.repo)
    base = shapes.random_base(config.models.base, device, dtype)
    return base, shapes.random_encoder(config, base)


def made_up(root: Path, config: Config) -> list[State]:
    """States with pictures of noise, as large as references may be, and prompts of a usual length."""
    side = max(config.data.min_side, int(config.encoder.max_pixels**0.5) // 32 * 32)
    draw = np.random.default_rng(config.seed)
    for number in range(1, STATES + 1):
        state = root / "dataset/1" / f"seed_{number}"
        state.mkdir(parents=True)
        for view in range(1, VIEWS + 1):
            noise = draw.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(
                state / f"photo_view_{view:02d}.png"
            )
            (state / f"photo_view_{view:02d}.txt").write_text(PROMPT)
    return states_for(Runtime.local(root), config)

"""What all parts of a benchmark share: the machine's rate, models with random weights, made-up persons."""

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from harald.base.qwen_image import QwenImage
from harald.benchmark.clock import Timing
from harald.config import Config
from harald.data.index import states_for
from harald.encoder.model import PersonEncoder
from harald.evaluation.bar import Bar
from harald.records import State
from harald.runtime import Runtime

Ratio = tuple[float, float, float]  # of the medians; the smallest and the largest of a round
STATES, VIEWS = 4, 8
SCENES = (
    "laughing, head turned to the left, on a beach at dusk, warm light from the side, waves and a parasol in the "
    "background, shallow depth of field",
    "reading in a library",
    "angry, in the rain at night, neon signs and wet asphalt behind",
    "asleep on a train, forehead against the window, fields passing by, morning light",
)


@dataclass(frozen=True)
class Bench:
    """base, encoder: make a new one each; rate: floating-point operations a second of a product of matrices; states:
    persons with pictures of noise; again: makes the same bench in another process.
    """

    config: Config
    base: Callable[[], QwenImage]
    encoder: Callable[[QwenImage], PersonEncoder]
    device: torch.device
    rate: float
    rounds: int
    states: list[State]
    again: Callable[[], "Bench"]


# What a part of the benchmark does: it gives what it has so far, ever more, so that what ends it loses little.
Part = Callable[[Bench], Iterator["Measured"]]


@dataclass
class Measured:
    """What a part of the benchmark found. text: tables in Markdown; facts: everything else, as JSON; notes: what a bar
    was measured on.
    """

    timings: dict[str, Timing] = field(default_factory=dict)
    bars: dict[Bar, Ratio] = field(default_factory=dict)
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[Bar, str] = field(default_factory=dict)


def made_up(root: Path, config: Config) -> list[State]:
    """States with pictures of noise, as large as references may be, and prompts of unequal length."""
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
            (state / f"photo_view_{view:02d}.txt").write_text(f"photo of <person>, {SCENES[view % len(SCENES)]}")
    return states_for(Runtime.local(root), config)


def forget(device: torch.device) -> None:
    """Give back the memory of what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()

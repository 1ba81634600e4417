"""Pictures from prompts, through the code that every job draws with."""

import dataclasses
import logging
import math
import statistics
import time

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from harald.base import BaseModel
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.determinism import key
from harald.evaluation.accuracy import Score
from harald.evaluation.drawing import Request, draw_all
from harald.generation.draw import draw, grid
from harald.injection.prompt import Prompt
from harald.proving_ground.measure.views import Views
from harald.proving_ground.persons import person

log = logging.getLogger(__name__)

CORES, REPEATS = 2, 3  # of the measured seconds
GROUP = 50  # pictures that are drawn together; the faces' sheet is two groups
COLUMNS, LABEL = 10, 14  # of the faces' sheet; pixels above a picture for its number


def at_side(config: Config) -> Config:
    """The preset's drawing, at the size that the small models know."""
    assert config.pretrain is not None, "checked before anything is measured"
    return dataclasses.replace(config, generate=dataclasses.replace(config.generate, size=config.pretrain.side))


def draw_views(base: QwenImage, views: Views, config: Config) -> Tensor:
    """A picture of each view's full text, uint8 [n, S, S, 3]; its noise depends on the seed and the view alone.

    Pictures of a group are drawn together, so groups that begin at the same view are equal to the last bit.
    """
    config, pictures = at_side(config), []
    for start in range(0, len(views), GROUP):
        group = views.pick(range(start, min(start + GROUP, len(views))))
        places = zip(group.state.tolist(), group.number.tolist(), strict=True)
        seeds = [key(config.seed, "measure_mini", "noise", state, number) for state, number in places]
        wanted = [Request("photo", "output", text, "", seed) for text, seed in zip(group.prompts, seeds, strict=True)]
        drawn = draw_all(base, wanted, {}, config)
        pictures += [torch.from_numpy(np.array(drawn[request])) for request in wanted]
        log.info("%d of %d pictures are drawn", len(pictures), len(views))
    return torch.stack(pictures)


def seconds_for_one(base: BaseModel, config: Config) -> float:
    """Median of REPEATS after one that warms up, on CORES threads; the number of threads is put back."""
    config, before = at_side(config), torch.get_num_threads()
    assert config.pretrain is not None
    someone = person(config.seed, 0, held_out=True, views=config.pretrain.views)
    text = someone.prompt(someone.views[0])
    torch.set_num_threads(CORES)
    try:
        taken = []
        for seed in range(REPEATS + 1):
            began = time.perf_counter()
            _draw(base, text, seed, config)
            taken.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(before)
    log.info("seconds for one picture: %s (the first warms up)", ", ".join(f"{t:.2f}" for t in taken))
    return statistics.median(taken[1:])


def numbered_sheet(images: Tensor) -> Image.Image:
    """Pictures 1, 2, 3, ... in rows of ten, the number above each. images: uint8 [n, S, S, 3]."""
    side, cells = images.shape[1], []
    for number, image in enumerate(images, 1):
        cell = Image.new("RGB", (side + LABEL, side + LABEL), "white")
        cell.paste(as_image(image), (LABEL // 2, LABEL))
        ImageDraw.Draw(cell).text((LABEL // 2, 1), str(number), fill="black")
        cells.append(cell)
    return grid([cells[i : i + COLUMNS] for i in range(0, len(cells), COLUMNS)], side + LABEL)


def share(count: int, of: int) -> Score:
    """Counted pictures as a share, with Wilson's 95 % interval: every picture shows another view."""
    z, p = 1.959964, count / of
    middle, half = p + z * z / (2 * of), z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    low, high = ((middle + sign * half) / (1 + z * z / of) for sign in (-1, 1))
    return Score(p, max(0.0, low), min(1.0, high), of)


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.numpy())


def _draw(base: BaseModel, text: str, seed: int, config: Config) -> Image.Image:
    """The text as it stands: it has no placeholder, and nobody is injected. Domains change nothing without a LoRA."""
    return draw(base, Prompt((text,), ()), {}, [seed], config, "photo")[0]

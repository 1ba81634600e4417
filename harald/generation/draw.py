"""Draw a prompt with, or without, persons in it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image, ImageOps
from torch import Tensor

from harald.base import BaseModel
from harald.config import Config
from harald.injection.points import condition, plain
from harald.injection.prompt import Prompt


@torch.no_grad()
def draw(
    base: BaseModel,
    prompt: Prompt,
    persons: Mapping[str, Tensor],
    seeds: Sequence[int],
    config: Config,
    domain: str,
    point: str | None = None,
    strength: float = 1.0,
    on_step: Callable[[], None] | None = None,
) -> list[Image.Image]:
    """One picture a seed. persons: name -> tokens [K, d]; empty: the class word alone, as the stock pipeline does.

    strength: 0 is the picture without the persons, 1 the plain path; any other value costs a forward pass more a step.
    on_step: called after every step of every picture; what it raises ends the drawing.
    """
    base.use_domain(domain)
    settings, word = config.generate, config.injection.class_word
    persons = persons if strength else {}
    states = condition(base, prompt, persons, point or config.injection.point, word)
    text = plain(base, prompt.with_word(word)) if persons and strength != 1 else None
    negative = plain(base, settings.negative_prompt)
    return base.draw(states, negative, seeds, settings.size, settings.steps, settings.guidance, text, strength, on_step)


def grid(rows: Sequence[Sequence[Image.Image]], side: int, gap: int = 4) -> Image.Image:
    """Pictures in rows, each fitted into side x side pixels."""
    columns = max(map(len, rows))
    sheet = Image.new("RGB", (columns * (side + gap) - gap, len(rows) * (side + gap) - gap), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            fitted = ImageOps.contain(picture.convert("RGB"), (side, side))
            sheet.paste(fitted, (x * (side + gap), y * (side + gap)))
    return sheet

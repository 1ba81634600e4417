"""Where a picture shows small worn things: an optional mask beside it, `<view>.parts.png`, for train.part_weight.

A grey picture of the view's size: white where glasses, an earring or a necklace cover a pixel, black elsewhere. A view
without one has nothing that weighs more.
"""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from harald.data.images import load_picture
from harald.errors import DatasetError
from harald.records import View

ENDING = ".parts.png"
FULL = 1 / 16  # of a patch: where they cover so much, the patch has the whole weight


def mask_file(image: Path) -> Path:
    """
    >>> mask_file(Path("seed_1/photo_view_01.png")).name
    'photo_view_01.parts.png'
    """
    return image.with_name(image.stem + ENDING)


def patch_weights(view: View, patches: int, weight: float) -> Tensor:
    """[patches] float32 of mean 1, row by row of the square that is cut from the view: `weight` times as much where
    the mask is. Raises DatasetError for a mask that cannot be read or has another size than the view.
    """
    file, side = mask_file(view.image), math.isqrt(patches)
    if not file.exists():
        return torch.ones(patches)
    mask = load_picture(file).convert("L")
    if sorted(mask.size) != sorted((view.width, view.height)):  # a camera may have turned the picture
        raise DatasetError(
            f"{file} has {mask.width} x {mask.height} pixels, its picture {view.width} x {view.height}",
            "make the mask as large as its picture",
        )
    shown = np.array(ImageOps.fit(mask, (side, side), Image.Resampling.BOX), dtype=np.float32) / 255
    weights = 1 + (weight - 1) * (torch.from_numpy(shown).flatten() / FULL).clamp(max=1)
    return weights / weights.mean()

"""Is a reference copied? A similarity that sees the layout answers: SSIM of small grey pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps
from skimage.metrics import structural_similarity

SIDE = 48  # pixels: pose and place of the head, not texture


def nearest(picture: Image.Image, references: Sequence[Image.Image]) -> float:
    """The largest structural similarity (Wang et al. 2004, at most 1) to one of the references."""
    mine = _small(picture)
    return max(float(structural_similarity(mine, _small(other), data_range=255)) for other in references)


def _small(picture: Image.Image) -> np.ndarray:
    """uint8 [SIDE, SIDE]."""
    return np.asarray(ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.LANCZOS).convert("L"))

"""Headwear as solids, and what it does to the hair beneath."""

import numpy as np

from harald.proving_ground.persons.head import Floats, smoothstep
from harald.proving_ground.persons.solids import ANGLE, HEAD, X, Y, Z

COVERS_CROWN = {"beanie": 7.75, "cap": 7.80, "hat": 7.86}  # height above which hair is pressed flat


def headwear(kind: str, hair: Floats | None) -> Floats | None:
    """Signed distance of the headwear, None for none."""
    back = smoothstep(0.6, 2.2, ANGLE)
    match kind:
        case "none":
            return None
        case "beanie":
            crown = np.maximum(HEAD - 0.20 - 0.12 * smoothstep(8.1, 8.6, Y), 7.72 - 0.25 * back - Y)
            return np.minimum(crown, np.maximum(HEAD - 0.28, np.abs(Y - (7.84 - 0.25 * back)) - 0.14))
        case "cap":
            crown = np.maximum(HEAD - 0.18, 7.80 - 0.15 * back - Y)
            oval = np.sqrt((X / 0.80) ** 2 + ((Z - 1.15) / 0.85) ** 2) - 1.0
            height = np.abs(Y - (7.88 - 0.14 * (Z - 1.4) - 0.20 * X**2)) - 0.045
            return np.minimum(crown, np.maximum.reduce([oval, height, 0.9 - Z]))
        case "hat":
            crown = np.maximum(HEAD - 0.20, 7.85 - Y)
            oval = np.sqrt((X / 0.86) ** 2 + ((Z - 0.5) / 1.02) ** 2) * 0.9 - 0.92 + 0.08 * smoothstep(8, 8.8, Y)
            crown = np.minimum(crown, np.maximum(oval, np.maximum(7.85 - Y, Y - 8.75)))
            radius = np.sqrt(X**2 + (Z - 0.45) ** 2)
            return np.minimum(crown, np.maximum(radius - 1.5, np.abs(Y - 7.92 - 0.10 * (radius - 1.0) ** 2) - 0.05))
        case "headscarf":
            return _headscarf()
        case "headband":
            middle = 8.02 - 0.35 * smoothstep(0.3, 2.2, ANGLE)
            thickness = HEAD - 0.12 if hair is None else np.minimum(HEAD - 0.12, np.maximum(hair - 0.06, -1))
            return np.maximum(thickness, np.abs(Y - middle) - 0.12)
        case _:
            raise KeyError(kind)


def _headscarf() -> Floats:
    """A cloth over the hair, around the face, crossed under the chin and falling on the shoulders, with folds."""
    folds = 0.025 * np.sin(ANGLE * 9 + Y * 5) * smoothstep(0.5, 1.2, ANGLE)
    face = np.sqrt((X / 0.66) ** 2 + ((Y - 7.06) / 0.90) ** 2) - 1.0
    opening = np.where(Z > 0.3, -face * 0.6, -1.0)
    hood = np.maximum(HEAD - 0.20 - folds - 0.05 * smoothstep(8.0, 8.6, Y), np.maximum(opening, 6.0 - Y))
    slope = 0.80 + 0.50 * smoothstep(6.35, 5.4, Y)
    cone = np.sqrt((X / slope) ** 2 + ((Z - 0.42) / (slope * 0.92)) ** 2) - 1.0
    drape = np.maximum(cone * 0.8 - 0.03 * np.sin(ANGLE * 8 + Y * 6), np.abs(Y - 5.86) - 0.50)
    return np.minimum(hood, drape)


def under_headwear(kind: str, hair: Floats | None) -> Floats | None:
    """The hair that is left: none under a headscarf, flat under a crown."""
    if hair is None or kind in ("none", "headband"):
        return hair
    if kind == "headscarf":
        return None
    limit = COVERS_CROWN[kind]
    return np.where(limit < Y, np.maximum(hair, HEAD - 0.08), hair)

"""The MakeHuman head and bust (CC0) as arrays, its morph targets, and the masks that everything else is placed by.

Canonical space: decimetres, x to the person's left, y up, z to the front. Eyes lie at y = 7.3, the chin at 6.3, the
top of the skull at 8.5. `head.npz` is written by bake.py.
"""

from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int32]


class Part(IntEnum):
    """What a pixel shows. Up to MOUTH these are parts of meshes, from LIPS on the shader finds them on the skin."""

    BACKGROUND = 0
    SKIN = 1
    EYE = 2
    TEETH = 3
    TONGUE = 4
    LASH = 5
    HAIR = 6
    HAIR_SHAPE = 7  # bun, pigtails, crest: what tells a style from a plain one
    CLOTH = 8
    FRAME = 9
    LENS = 10
    EARRING = 11
    HEADWEAR = 12
    EARRING_GEM = 13
    MOUTH = 14
    NECKLACE = 15
    NECKLACE_GEM = 16
    LIPS = 17
    BEARD = 18
    EAR = 19
    NECK = 20


_DATA = dict(np.load(Path(__file__).with_name("head.npz"), allow_pickle=False))
VERTICES: Floats = _DATA["V"].astype(np.float32)
TRIANGLES: Ints = _DATA["T"].astype(np.int32)
TRIANGLE_PARTS = np.where(_DATA["tp"] == 8, Part.BACKGROUND, _DATA["tp"]).astype(np.int8)
VERTEX_PARTS = _DATA["vp"]
BODY = VERTEX_PARTS == Part.SKIN
INSIDE_MOUTH = _DATA["inm"].astype(np.float32)
LIPS: Floats = _DATA["m_lips"]
EARS = _DATA["m_ears"] > 0.3
NAMES = {str(name): place for place, name in enumerate(_DATA["t_names"])}
_FIRST, _INDEX, _SHIFT = _DATA["t_off"], _DATA["t_i"], _DATA["t_d"].astype(np.float32)

EYES: Floats = np.stack(
    [VERTICES[(VERTEX_PARTS == Part.EYE) & side].mean(0) for side in (VERTICES[:, 0] > 0, VERTICES[:, 0] < 0)]
)


def morph(vertices: Floats, name: str, weight: float) -> None:
    """Add a target to vertices [n, 3] in place. Raises KeyError for a name that head.npz does not have."""
    place = NAMES[name]
    span = slice(_FIRST[place], _FIRST[place + 1])
    vertices[_INDEX[span]] += _SHIFT[span] * np.float32(weight)


def smoothstep(start: float | Floats, end: float | Floats, x: float | Floats) -> Floats:
    """0 before `start`, 1 after `end`, smooth between; falls where end < start."""
    t = np.clip((np.asarray(x) - start) / (np.asarray(end) - start), 0, 1)
    return t * t * (3 - 2 * t)


# ---------------------------------------------------------------- hairline and beard
AZIMUTH = np.arctan2(np.abs(VERTICES[:, 0]), VERTICES[:, 2] - 0.35)  # 0 in front, pi at the back
_ANGLES = (0, 0.45, 0.85, 1.15, 1.35, 1.55, 1.9, 3.2)
_HEIGHTS = np.array((8.02, 7.98, 7.82, 7.50, 7.05, 6.95, 6.62, 6.45))
_RECEDES = np.array((1, 1, 0.8, 0.3, 0, 0, 0, 0))


def hairline(azimuth: Floats, receding: float = 0.0) -> Floats:
    """Height above which hair grows."""
    return np.interp(azimuth, _ANGLES, _HEIGHTS + receding * _RECEDES).astype(np.float32)


def scalp_mask(receding: float) -> Floats:
    """[n], 1 where hair grows."""
    y = VERTICES[:, 1]
    mask = smoothstep(-0.06, 0.14, y - hairline(AZIMUTH, receding)) * BODY * (y > 6.3)
    mask[EARS] = 0
    return mask.astype(np.float32)


def beard_mask(kind: str) -> Floats:
    """[n], 1 where the beard grows."""
    x, y, z = np.abs(VERTICES[:, 0]), VERTICES[:, 1], VERTICES[:, 2]
    cheek = np.interp(AZIMUTH, (0, 0.25, 0.45, 0.8, 1.05, 1.25), (6.40, 6.48, 6.72, 6.82, 6.95, 7.2))
    full = smoothstep(0.03, -0.10, y - cheek) * smoothstep(6.02, 6.22, y + 0.12 * (z < 1.0))
    full = full * smoothstep(1.36, 1.2, AZIMUTH)
    arch = np.abs(y - (6.775 - 0.28 * np.clip(x - 0.1, 0, 1)))
    moustache = smoothstep(0.06, 0.0, arch - 0.06) * smoothstep(0.38, 0.29, x) * (z > 1.2)
    corners = smoothstep(0.05, -0.05, np.abs(x - 0.33) - 0.07) * smoothstep(6.42, 6.5, y) * smoothstep(6.78, 6.7, y)
    chin = smoothstep(0.36, 0.24, x) * smoothstep(6.47, 6.40, y) * smoothstep(6.08, 6.2, y) * (z > 0.9)
    soul = smoothstep(0.09, 0.05, x) * smoothstep(6.50, 6.46, y) * smoothstep(6.3, 6.36, y) * (z > 1.2)
    corners = corners * (z > 1.1)
    shapes = {
        "none": [0 * y],
        "stubble": [full, moustache, corners, soul],
        "full": [full, moustache, corners, soul],
        "moustache": [moustache],
        "goatee": [moustache, chin, corners, soul],
    }[kind]
    mask = np.clip(np.maximum.reduce(shapes), 0, 1) * (z > 0.35) * BODY * (INSIDE_MOUTH < 0.3) * (LIPS < 0.15)
    mask[EARS] = 0
    return mask.astype(np.float32)

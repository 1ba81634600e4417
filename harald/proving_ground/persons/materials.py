"""The colour of a surface point before any light falls on it, one function for each material. Compiled by numba.

Points are canonical (see head.py), so that a freckle stays where it is when the face moves.
"""

import math
from typing import NamedTuple

from harald.proving_ground.persons.look import RGB
from harald.proving_ground.persons.raster import kernel, noise, step


class Materials(NamedTuple):
    """Colours of a state, RGB in 0..1."""

    skin: RGB
    lips: RGB
    shadow: RGB
    iris: RGB
    brow: RGB
    hair: RGB
    tips: RGB
    beard: RGB
    cloth: RGB
    trim: RGB
    frame: RGB
    lens: RGB
    earring: RGB
    earring_gem: RGB
    necklace: RGB
    necklace_gem: RGB
    headwear: RGB
    band: RGB


class Knobs(NamedTuple):
    """What else the materials depend on."""

    ruddy: float
    makeup: float
    freckles: float
    brow_thickness: float
    brow_arch: float
    brow_slope: float
    brow_lift: float
    iris: float
    mole: tuple[float, float, float]
    scalp: float  # strength of the hair painted on the scalp
    beard: float
    wave: float
    curls: float
    tips: float
    pattern: int  # of PATTERNS
    collar: float
    dip: float
    sleeveless: float
    opened: float
    ribs: float
    band_below: float


@kernel
def mix(a, b, share):
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


@kernel
def scaled(a, factor):
    return (a[0] * factor, a[1] * factor, a[2] * factor)


@kernel
def _bell(a, b):
    square = a * a + b * b
    return math.exp(-square) if square < 6.0 else 0.0


@kernel
def neckline(x, z, k):
    return k.collar - k.dip * math.exp(-((x / 0.42) ** 2)) * (1.0 if z > 0.25 else 0.25)


@kernel
def is_cloth(x, y, z, k):
    if y >= k.collar or y >= neckline(x, z, k):
        return False
    if k.sleeveless > 0 and abs(x) >= 1.10 and y >= 5.0:
        return False
    return not (k.opened > 0 and abs(x) < 0.05 and y < 5.2)


@kernel
def cloth(x, y, z, m, k, comic):
    share = 0.0
    if k.pattern == 1:
        share = 1.0 if math.sin(y * 15) > 0.1 else 0.0
    elif k.pattern == 2:
        fx, fy = x * 3.6, y * 3.6
        fx -= math.floor(fx)
        fy -= math.floor(fy)
        share = 1.0 if (fx - 0.5) ** 2 + (fy - 0.5) ** 2 < 0.08 else 0.0
    if y > neckline(x, z, k) - 0.09:
        share = 1.0
    colour = mix(m.cloth, m.trim, share)
    return colour if comic else scaled(colour, 0.92 + 0.16 * noise(x * 60, y * 60, z * 60))


@kernel
def face(x, y, z, m, k, comic):
    """Skin with blush, freckles, eye shadow and mole."""
    ax = abs(x)
    colour = m.skin
    cheek = _bell((ax - 0.45) / 0.2, (y - 6.98) / 0.16) if z > 0.6 else 0.0
    nose = _bell(x / 0.14, (y - 6.93) / 0.12) if z > 1.3 else 0.0
    red = (0.7 * k.ruddy + 0.5 * k.makeup) * cheek + 0.7 * k.ruddy * nose
    colour = (colour[0] * (1 - 0.04 * red), colour[1] * (1 - 0.28 * red), colour[2] * (1 - 0.25 * red))
    if k.freckles > 0 and z > 0.9:
        spot = step(0.66, 0.76, noise(x * 20, y * 20, z * 7 + 3.3))
        spot *= _bell(0.0, (y - 7.02) / 0.24) * k.freckles
        colour = (colour[0] * (1 - 0.30 * spot), colour[1] * (1 - 0.42 * spot), colour[2] * (1 - 0.50 * spot))
    if z > 1:
        lid = _bell((ax - 0.31) / 0.19, (y - 7.41) / 0.085)
        colour = mix(colour, m.shadow, min(1.0, 0.95 * k.makeup * lid))
        bag = 0.08 * _bell((ax - 0.3) / 0.2, (y - 7.13) / 0.06)
        colour = scaled(colour, 1 - bag)
        if k.mole[0] > 0 and (x - k.mole[1]) ** 2 + (y - k.mole[2]) ** 2 < k.mole[0] ** 2:
            colour = (colour[0] * 0.4, colour[1] * 0.3, colour[2] * 0.3)
    return colour if comic else scaled(colour, 0.96 + 0.08 * noise(x * 14, y * 14, z * 14))


@kernel
def brow(x, y, z, k, comic):
    """How much of a brow lies here, 0..1."""
    if z <= 0.9 or y <= 7.25 or y >= 8.0:
        return 0.0
    q = (abs(x) - 0.30) / 0.25
    centre = 7.515 + k.brow_arch * 0.06 * (1 - q * q) + k.brow_slope * q * 0.05 + k.brow_lift * 0.05
    thickness = k.brow_thickness * (1.0 - 0.5 * max(0.0, q))
    share = step(thickness, thickness * 0.45, abs(y - centre)) * step(1.12, 0.9, abs(q))
    return share if comic else share * (0.6 + 0.4 * noise(x * 70 + y * 40, y * 25, 2.0))


@kernel
def beard(x, y, z, grown, k, comic):
    """(how much beard lies here, how light it is)."""
    if grown <= 0.02:
        return 0.0, 1.0
    strands = noise(x * 45, y * 30, z * 45) * 0.6 + 0.4 * noise(x * 110, y * 60, z * 110)
    if comic:
        share = 1.0 if grown > 0.38 + 0.14 * (noise(x * 22, y * 22, z * 22) - 0.5) else 0.0
        return share * k.beard, (1.0 if strands > 0.42 else 0.72)
    return step(0.12, 0.55, grown + 0.35 * (strands - 0.5)) * k.beard, 0.55 + 0.75 * strands


@kernel
def eyeball(dx, dy, dz, m, k, comic):
    radius = math.sqrt(dx * dx + dy * dy)
    if dz <= 0 or radius >= k.iris:
        return (0.90, 0.885, 0.87)
    if radius < k.iris * 0.46:
        return (0.02, 0.02, 0.02)
    colour = m.iris if comic else scaled(m.iris, 0.8 + 0.5 * noise(math.atan2(dy, dx) * 6, radius * 60, 1.0))
    return scaled(colour, 0.4) if radius > k.iris * 0.86 else colour


@kernel
def hair(x, y, z, m, k, comic):
    """(colour, how light the strand is)."""
    angle, radius = math.atan2(x, z - 0.35), math.sqrt(x * x + (z - 0.35) ** 2)
    wave = k.wave * math.sin(y * 9 + angle * 3)
    if k.curls > 0.5:
        strand = noise(x * 10, y * 10, z * 10) * 0.6 + 0.4 * noise(x * 24, y * 24, z * 24)
    else:
        strand = 0.5 * noise(angle * 13 + wave * 3, y * 1.1, radius * 2)
        strand += 0.5 * noise(angle * 34 + wave * 7, y * 1.7, radius * 5)
    colour = mix(m.hair, m.tips, k.tips * step(6.9, 6.1, y))
    if comic:
        return scaled(colour, 1.0 if strand > 0.40 else 0.76), strand
    return scaled(colour, 0.62 + 0.8 * strand), strand


@kernel
def headwear(x, y, z, m, k, comic):
    colour = m.band if y < k.band_below else m.headwear
    if k.ribs > 0:
        colour = scaled(colour, 0.85 + (0.3 if math.sin(math.atan2(x, z - 0.4) * 40) > 0 else 0.0))
    return colour if comic else scaled(colour, 0.9 + 0.2 * noise(x * 40, y * 40, z * 40))

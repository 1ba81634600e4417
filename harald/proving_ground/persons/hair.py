"""Hair styles as solids around the head: one for the hair, one for what makes the style (bun, pigtails, crest)."""

import numpy as np

from harald.proving_ground.persons.head import EARS, VERTICES, Floats, smoothstep
from harald.proving_ground.persons.look import Look
from harald.proving_ground.persons.solids import ANGLE, HAIRLINE, HEAD, X, Y, Z, ball, capsule, rough

_EAR = VERTICES[EARS & (VERTICES[:, 0] > 0)].mean(0)
# Near the ear the distance to the head bulges, for it was taken without ears: a tuft would stand there.
EAR_ROOT = smoothstep(0.36, 0.16, np.sqrt((np.abs(X) - _EAR[0]) ** 2 + (Y - _EAR[1]) ** 2 + (Z - _EAR[2]) ** 2))

HANGING = ("bob", "long", "wavy")  # cover the ears, unless tucked behind them


def hair(look: Look) -> tuple[Floats | None, Floats | None]:
    """Signed distances (hair, style shape); None where there is none."""
    volume, seed = look.volume, look.hair_seed
    fringe = _fringe() if look.fringe else None
    match look.hair:
        case "bald":
            return None, None
        case "cropped":
            top = smoothstep(7.7, 8.3, Y)
            side = smoothstep(-0.9, 0.5, X * look.side + 0.25)
            body = _cap(look, 0.08 * volume + (0.10 + 0.10 * side) * top * volume, 0.2) + 0.012 * rough(seed, 0.3)
        case "curly":
            body = _cap(look, 0.24 * volume + 0.10 * volume * rough(seed, 0.24) * _ramp(look, 0.2), 0.25)
        case "afro":
            globe = ball(0, 7.75, 0.30, 1.10 + 0.22 * volume) + 0.03 * rough(seed, 0.3)
            globe = np.maximum(globe, np.maximum((HAIRLINE - 0.05 - Y) * 0.8, 6.75 - Y))
            body = np.minimum(globe, _cap(look, 0.15, 0.1))
        case "mohawk":
            crest = 0.55 * volume * smoothstep(0.22, 0.06, np.abs(X)) * smoothstep(7.2, 7.8, Y)
            crest = crest * (0.85 + 0.15 * np.sin(Z * 14))
            return _cap(look, 0.045, 0.1), np.maximum(_cap(look, crest, 0.1), np.abs(X) - 0.22)
        case "bob":
            body = _with(np.minimum(_cap(look, 0.16 * volume, 0.3), _curtain(look, 6.42, 0.10)), fringe)
        case "long":
            body = _with(np.minimum(_cap(look, 0.14 * volume, 0.3), _curtain(look, 4.9, 0.06)), fringe)
        case "wavy":
            waves = 0.07 * np.sin(Y * 8 + ANGLE * 4)
            body = _with(np.minimum(_cap(look, 0.19 * volume, 0.3), _curtain(look, 5.3, 0.24) + waves), fringe)
        case "bun":
            knot = ball(0, 8.72, 0.20, 0.34 + 0.07 * volume) + 0.02 * rough(seed, 0.3)
            return _with(_cap(look, 0.08 * volume, 0.2), fringe), knot
        case "pigtails":
            return _with(_cap(look, 0.09 * volume, 0.2), fringe), _pigtails()
        case _:
            raise KeyError(look.hair)
    if look.hair in HANGING:
        body = body + 0.016 * rough(seed, 0.28)
    return body, None


def _ramp(look: Look, width: float) -> Floats:
    return smoothstep(-0.02, width, Y - HAIRLINE - look.receding)


def _cap(look: Look, thickness: float | Floats, width: float) -> Floats:
    """A layer on the scalp that runs out at the hairline and leaves the root of the ear free."""
    return HEAD - (thickness * _ramp(look, width) - 0.06 * (1 - _ramp(look, 0.1))) + 0.3 * EAR_ROOT


def _curtain(look: Look, end: float, flare: float) -> Floats:
    """Hair that falls around the head down to height `end`; behind the ears if the ears are to be seen."""
    start = 1.50 if look.tucked else 1.02
    radius = 0.86 + flare * smoothstep(7.3, end, Y)
    ellipse = np.sqrt((X / radius) ** 2 + ((Z - 0.33) / 0.80) ** 2)
    band = np.abs(ellipse - 0.97) - 0.19 * look.volume
    shell = np.maximum(HEAD - 0.17 * look.volume, np.abs(ellipse - 1.0) - 0.42)
    fall = np.where(Y < 6.3, np.minimum(band * 0.85, shell), band * 0.85)
    fall = np.maximum(fall, (start - ANGLE) * 0.8)
    fall = np.maximum(fall, end - Y + 0.10 * np.abs(np.sin(ANGLE * 7)))
    return np.maximum(fall, Y - 7.75)


def _fringe() -> Floats:
    return np.maximum.reduce([HEAD - 0.13, 7.66 - Y + 0.03 * np.sin(X * 25), ANGLE - 1.05, Y - 8.4])


def _with(body: Floats, fringe: Floats | None) -> Floats:
    return body if fringe is None else np.minimum(body, fringe)


def _pigtails() -> Floats:
    parts = []
    for side in (-1, 1):
        parts.append(capsule((side * 0.62, 7.75, 0.1), (side * 1.14, 7.40, 0.2), 0.13, 0.22))
        parts.append(capsule((side * 1.14, 7.40, 0.2), (side * 1.22, 6.05, 0.3), 0.25, 0.09))
    return np.minimum.reduce(parts)

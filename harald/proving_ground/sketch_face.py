"""Eyes, brows, nose, mouth and beard of a sketched person, by expression."""

from dataclasses import dataclass

from harald.proving_ground.sketch_pen import INK, Colour, Pen, oval, shade
from harald.proving_ground.sketch_persons import HAIR_COLOURS, Identity, SketchState


@dataclass(frozen=True)
class Mimic:
    """eyes: openness, 0 is a happy arc; brow: (inner, outer) lift; mouth: what it does; wink: one eye is shut."""

    eyes: float
    brow: tuple[float, float]
    mouth: str
    wink: bool = False


MIMICS = {
    "smiling": Mimic(1.0, (0.0, 0.0), "smile"),
    "laughing": Mimic(0.0, (0.06, 0.0), "laugh"),
    "angry": Mimic(0.75, (-0.17, 0.08), "frown"),
    "surprised": Mimic(1.3, (0.16, 0.14), "round"),
    "sad": Mimic(0.8, (0.14, -0.08), "frown"),
    "winking": Mimic(1.0, (0.04, 0.06), "smile", wink=True),
    "with a neutral face": Mimic(0.95, (0.0, 0.0), "straight"),
}
_MOUTH_Y = 0.52


def draw_expression(pen: Pen, identity: Identity, expression: str, brow_colour: Colour) -> None:
    mimic = MIMICS[expression]
    for side in (-1, 1):
        x = side * identity.eye_distance
        pen.ellipse(side * 0.5, 0.3, 0.17, 0.11, _blush(identity.skin), outline=False)
        if mimic.eyes == 0 or (mimic.wink and side == 1):
            pen.stroke(oval(x, 0.03, 0.16, 0.14, 190, 350, 16), INK, 0.065)
        else:
            _eye(pen, x, mimic.eyes, identity.eyes)
        inner, outer = mimic.brow
        pen.stroke([(x - side * 0.17, -0.34 - inner), (x, -0.4 - (inner + outer) / 2), (x + side * 0.2, -0.34 - outer)],
                   brow_colour, 0.085)  # fmt: skip
    nose = shade(identity.skin, 0.72)
    pen.stroke([(0.02, 0.02), (identity.nose, 0.26), (-0.02, 0.28)], nose, 0.05)
    _mouth(pen, mimic.mouth, identity.skin)


def _eye(pen: Pen, x: float, openness: float, iris: Colour) -> None:
    pen.ellipse(x, 0, 0.18, 0.14 * openness, (252, 252, 250), outline=pen.comic, soft=False)
    pen.ellipse(x, 0.005, 0.1, min(0.1, 0.13 * openness), iris, outline=False)
    pen.ellipse(x, 0.005, 0.05, 0.05, INK, outline=False)
    pen.ellipse(x - 0.035, -0.035, 0.024, 0.024, (255, 255, 255), outline=False)
    pen.stroke(oval(x, 0, 0.19, 0.15 * openness, 195, 345, 16), INK, 0.05)


def _mouth(pen: Pen, kind: str, skin: Colour) -> None:
    lip = _lips(skin)
    match kind:
        case "laugh":
            pen.shape(oval(0, _MOUTH_Y - 0.06, 0.34, 0.33, 0, 180, 24), (116, 36, 42), soft=False)
            teeth = [(-0.29, -0.05), (0.29, -0.05), (0.25, 0.04), (-0.25, 0.04)]
            pen.shape([(x, _MOUTH_Y + y) for x, y in teeth], (252, 250, 246), outline=False)
        case "smile":
            pen.stroke(oval(0, _MOUTH_Y - 0.17, 0.3, 0.24, 20, 160, 20), lip, 0.075)
        case "frown":
            pen.stroke(oval(0, _MOUTH_Y + 0.2, 0.26, 0.2, 205, 335, 20), lip, 0.075)
        case "round":
            pen.ellipse(0, _MOUTH_Y + 0.05, 0.13, 0.18, (116, 36, 42), soft=False)
        case "straight":
            pen.stroke([(-0.2, _MOUTH_Y), (0.2, _MOUTH_Y)], lip, 0.075)


def _lips(skin: Colour) -> Colour:
    """Red on light skin, a lighter red on dark skin, so that the mouth shows."""
    return (164, 70, 70) if sum(skin) > 380 else (206, 104, 100)


def _blush(skin: Colour) -> Colour:
    red, green, blue = skin
    return min(255, red + 6), round(green * 0.87), round(blue * 0.86)


def draw_beard(pen: Pen, state: SketchState, expression: str) -> None:
    """Moustache and beard; the mouth is drawn again on top of a full beard."""
    colour, width = shade(HAIR_COLOURS[state.look.hair_colour], 0.92), state.identity.width
    chin = width * (1 - state.identity.jaw)
    moustache = [*oval(-0.17, 0.43, 0.2, 0.1, 180, 360, 12), *oval(0.17, 0.43, 0.2, 0.1, 180, 360, 12), (0.0, 0.42)]
    match state.look.beard:
        case "full beard":
            outer = [(width * 0.99, 0.1), (width * 0.93, 0.5), (chin * 0.86, 0.86), (0.3, 1.14), (-0.3, 1.14),
                     (-chin * 0.86, 0.86), (-width * 0.93, 0.5), (-width * 0.99, 0.1)]  # fmt: skip
            inner = [(-width * 0.8, 0.22), (-0.42, 0.4), (0, 0.33), (0.42, 0.4), (width * 0.8, 0.22)]
            pen.shape([*outer, *inner], colour)
            pen.ellipse(0, _MOUTH_Y + 0.03, 0.34, 0.15, shade(state.identity.skin, 0.94), outline=False)
            _mouth(pen, MIMICS[expression].mouth, state.identity.skin)
        case "moustache":
            pen.shape(moustache, colour)
        case "goatee":
            pen.shape(moustache, colour)
            pen.shape(oval(0, 0.9, 0.26, 0.2), colour)

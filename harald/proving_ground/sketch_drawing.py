"""Draws a sketched person: background, back hair, body, head, face, front hair, what is worn."""

import random

import numpy as np
from PIL import Image, ImageFilter

from harald.proving_ground.sketch_face import draw_beard, draw_expression
from harald.proving_ground.sketch_pen import OVERSAMPLE, Pen, face_outline, oval, shade
from harald.proving_ground.sketch_persons import CLOTHES, HAIR_COLOURS, TILTS, SketchState, SketchView
from harald.proving_ground.sketch_scenes import paint_scene


def draw_view(state: SketchState, view: SketchView, side: int = 128) -> Image.Image:
    """RGB, side x side pixels, drawn four times as large and scaled down. The same bytes for the same arguments."""
    size, comic = side * OVERSAMPLE, view.domain == "comic"
    canvas = paint_scene(view.scene, size, comic, random.Random(view.noise))
    unit = size * 0.255
    centre = (size * 0.5 + view.jitter[0] * unit, size * 0.47 + view.jitter[1] * unit)
    head = Pen(canvas, centre, unit, TILTS[view.pose], comic)
    body = Pen(canvas, centre, unit, 0.0, comic)
    _back_hair(head, state)
    _body(body, head, state)
    _head(head, state)
    draw_expression(head, state.identity, view.expression, shade(HAIR_COLOURS[state.look.hair_colour], 0.8))
    draw_beard(head, state, view.expression)
    _front_hair(head, state)
    _glasses(head, state)
    _hat(head, state)
    if not comic:
        canvas = canvas.filter(ImageFilter.GaussianBlur(size / 420))
    small = canvas.resize((side, side), Image.Resampling.LANCZOS)
    return small if comic else _grain(small, view.noise)


def _grain(image: Image.Image, seed: int) -> Image.Image:
    """Film grain and a vignette, so that a photo is not a clean drawing."""
    side = image.width
    noise = np.random.default_rng(seed).normal(0, 3.2, (side, side, 1))
    line = np.linspace(-1, 1, side) ** 2
    vignette = 1.03 - 0.12 * (line[:, None] + line[None, :])[..., None]
    return Image.fromarray(np.clip(np.asarray(image) * vignette + noise, 0, 255).astype(np.uint8))


def _body(pen: Pen, head: Pen, state: SketchState) -> None:
    skin, cloth = shade(state.identity.skin, 0.9), CLOTHES[state.look.clothes]
    broad = 1.35 if state.identity.female else 1.6
    pen.shape([(-0.33, 0.5), (0.33, 0.5), (0.38, 1.5), (-0.38, 1.5)], skin)
    shoulders = [*oval(0, 2.6, broad, 1.32, 180, 360), (broad, 3.2), (-broad, 3.2)]
    pen.shape(shoulders, cloth)
    pen.shape(oval(0, 1.3, 0.42, 0.2), skin, soft=False)


def _head(pen: Pen, state: SketchState) -> None:
    identity = state.identity
    for side in (-1, 1):
        pen.ellipse(side * identity.width * 0.98, 0.06, 0.14, 0.22, shade(identity.skin, 0.95))
        if state.look.earrings == "pearl earrings":
            pen.ellipse(side * identity.width * 1.03, 0.33, 0.085, 0.085, (250, 244, 232))
        elif state.look.earrings:
            pen.stroke(oval(side * identity.width * 1.03, 0.42, 0.14, 0.16), (226, 176, 52), 0.055)
    pen.shape(face_outline(identity.width, identity.jaw), identity.skin)


def _back_hair(pen: Pen, state: SketchState) -> None:
    colour, width = shade(HAIR_COLOURS[state.look.hair_colour], 0.85), state.identity.width
    match state.look.hair:
        case "long":
            pen.shape([*oval(0, -0.1, width + 0.3, 1.12, 180, 360), (width + 0.36, 1.7), (-width - 0.36, 1.7)], colour)
        case "bob":
            pen.shape([*oval(0, -0.1, width + 0.26, 1.1, 180, 360), (width + 0.3, 0.86), (-width - 0.3, 0.86)], colour)
        case "bun":
            pen.ellipse(0, -1.28, 0.42, 0.38, colour)
        case "curly":
            for x, y, r in _CURLS:
                pen.ellipse(x * (width + 0.18), y, r, r, colour, soft=False)


_CURLS = [
    (x, y, 0.36)
    for x, y in [(-1, 0.45), (1, 0.45), (-1.1, 0.05), (1.1, 0.05), (-1.05, -0.4), (1.05, -0.4), (-0.75, -0.85),
                 (0.75, -0.85), (-0.3, -1.1), (0.3, -1.1)]
]  # fmt: skip


def _front_hair(pen: Pen, state: SketchState) -> None:
    colour, width = HAIR_COLOURS[state.look.hair_colour], state.identity.width
    top = oval(0, -0.12, width + 0.1, 1.02, 180, 360)
    match state.look.hair:
        case "short":
            pen.shape(
                [
                    *top,
                    (width * 0.92, -0.22),
                    (width * 0.75, -0.55),
                    (0.1, -0.52),
                    (-0.5, -0.62),
                    (-width * 0.92, -0.22),
                ],
                colour,
            )
        case "long" | "bun":
            pen.shape(
                [
                    *top,
                    (width * 0.9, -0.1),
                    (width * 0.55, -0.56),
                    (0, -0.78),
                    (-width * 0.55, -0.56),
                    (-width * 0.9, -0.1),
                ],
                colour,
            )
        case "bob":
            pen.shape(
                [*top, (width + 0.1, 0.3), (width * 0.86, -0.36), (-width * 0.86, -0.36), (-width - 0.1, 0.3)], colour
            )
        case "curly":
            for i in range(7):
                x = (i - 3) / 3 * width * 0.92
                pen.ellipse(x, -0.74 + 0.3 * (x / width) ** 2, 0.27, 0.27, colour, soft=False)


def _glasses(pen: Pen, state: SketchState) -> None:
    kind, apart = state.look.glasses, state.identity.eye_distance
    if not kind:
        return
    frame = (40, 34, 38) if kind != "round" else (120, 62, 40)
    for side in (-1, 1):
        x = side * apart
        rim = oval(x, -0.04, 0.29, 0.28) if kind != "square" else _rounded(x, -0.04, 0.29, 0.23)
        if kind == "sun":
            pen.shape(oval(x, -0.02, 0.31, 0.27), (38, 36, 48), soft=False)
            pen.stroke([(x - 0.14, 0.02), (x - 0.02, -0.14)], (130, 134, 158), 0.05)
        else:
            pen.stroke([*rim, rim[0], rim[1]], frame, 0.075)
        pen.stroke([(side * (apart + 0.29), -0.08), (side * state.identity.width, -0.12)], frame, 0.065)
    pen.stroke([(-apart + 0.28, -0.06), (0, -0.11), (apart - 0.28, -0.06)], frame, 0.065)


def _rounded(x: float, y: float, rx: float, ry: float) -> list[tuple[float, float]]:
    corner = 0.07
    points = []
    for cx, cy, start in ((1, 1, 0), (-1, 1, 90), (-1, -1, 180), (1, -1, 270)):
        points += oval(x + cx * (rx - corner), y + cy * (ry - corner), corner, corner, start, start + 90, 6)
    return points


def _hat(pen: Pen, state: SketchState) -> None:
    width = state.identity.width
    if state.look.hat == "beanie":
        colour = shade(CLOTHES[state.look.clothes], 0.75)
        pen.shape(oval(0, -0.55, width + 0.16, 0.84, 180, 360), colour)
        pen.shape(_rounded(0, -0.56, width + 0.2, 0.15), shade(colour, 1.2))
        pen.ellipse(0, -1.42, 0.17, 0.17, shade(colour, 1.35))
    elif state.look.hat:
        straw = (230, 198, 126)
        pen.ellipse(0, -0.6, width + 0.72, 0.24, straw)
        pen.shape([*oval(0, -0.75, width * 0.86, 0.68, 180, 360), (width * 0.9, -0.62), (-width * 0.9, -0.62)], straw)
        band = [(-width * 0.88, -0.86), (width * 0.88, -0.86), (width * 0.9, -0.64), (-width * 0.9, -0.64)]
        pen.shape(band, (150, 66, 56), soft=False)

"""Backgrounds of the sketched persons, by the words of the prompt."""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter

from harald.proving_ground.sketch_pen import INK, Colour


def paint_scene(scene: str, size: int, comic: bool, choices: random.Random) -> Image.Image:
    """A square RGB background, `size` pixels; out of focus in a photo, inked in a comic."""
    canvas = Image.new("RGB", (size, size))
    _PAINTERS[scene](_Brush(canvas, comic), choices)
    return canvas if comic else canvas.filter(ImageFilter.GaussianBlur(size / 60))


class _Brush:
    """Coordinates from 0 to 1."""

    def __init__(self, canvas: Image.Image, comic: bool):
        self.canvas, self.comic, self.size = canvas, comic, canvas.width
        self.draw = ImageDraw.Draw(canvas)
        self.line = max(1, round(self.size / 160)) if comic else 0

    def sky(self, top: Colour, bottom: Colour) -> None:
        """A gradient, in a comic three bands."""
        mask = Image.linear_gradient("L").resize(self.canvas.size)
        if self.comic:
            mask = mask.point([min(255, v // 86 * 110) for v in range(256)])
        self.canvas.paste(top, (0, 0, self.size, self.size))
        self.canvas.paste(bottom, mask=mask)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        s = self.size
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill, INK if self.line else None, self.line)

    def disc(self, x: float, y: float, r: float, fill: Colour, flat: float = 1.0) -> None:
        s = self.size
        bounds = ((x - r) * s, (y - r * flat) * s, (x + r) * s, (y + r * flat) * s)
        self.draw.ellipse(bounds, fill, INK if self.line else None, self.line)

    def poly(self, points: list[tuple[float, float]], fill: Colour) -> None:
        s = self.size
        placed = [(x * s, y * s) for x, y in points]
        self.draw.polygon(placed, fill)
        if self.line:
            self.draw.line([*placed, placed[0]], INK, self.line)


def _park(brush: _Brush, choices: random.Random) -> None:
    brush.sky((140, 196, 236), (222, 240, 246))
    brush.disc(0.25, 1.05, 0.55, (134, 186, 104), 0.7)
    brush.disc(0.85, 1.1, 0.6, (112, 168, 92), 0.75)
    for x in (choices.uniform(0.04, 0.18), choices.uniform(0.8, 0.95)):
        brush.box(x - 0.025, 0.45, x + 0.025, 0.8, (122, 88, 62))
        brush.disc(x, 0.36, 0.17, (86, 148, 84))


def _beach(brush: _Brush, choices: random.Random) -> None:
    brush.sky((120, 190, 232), (250, 226, 190))
    brush.disc(choices.choice((0.14, 0.86)), choices.uniform(0.16, 0.3), 0.08, (255, 226, 130))
    brush.box(-0.1, 0.55, 1.1, 0.8, (72, 150, 182))
    brush.box(-0.1, 0.76, 1.1, 1.1, (236, 212, 160))


def _street(brush: _Brush, choices: random.Random) -> None:
    brush.sky((26, 30, 62), (76, 64, 108))
    brush.disc(choices.uniform(0.1, 0.9), 0.12, 0.06, (246, 238, 206))
    for i in range(5):
        x, top = i * 0.22 - 0.05, choices.uniform(0.25, 0.5)
        brush.box(x, top, x + 0.2, 1.1, (44 + 8 * (i % 2), 44, 72))
        for row in range(4):
            for column in range(2):
                lit = choices.random() < 0.6
                left, up = x + 0.04 + 0.08 * column, top + 0.06 + 0.13 * row
                brush.box(left, up, left + 0.045, up + 0.07, (252, 212, 120) if lit else (58, 60, 92))


def _library(brush: _Brush, choices: random.Random) -> None:
    brush.sky((98, 70, 52), (78, 54, 40))
    books = ((168, 72, 62), (72, 106, 136), (206, 168, 98), (92, 122, 88), (138, 98, 132))
    for row in range(4):
        x, low = 0.0, 0.25 * (row + 1) - 0.02
        while x < 1.0:
            width = choices.uniform(0.035, 0.07)
            brush.box(x, low - choices.uniform(0.14, 0.2), x + width, low, choices.choice(books))
            x += width
        brush.box(-0.1, low, 1.1, low + 0.03, (122, 88, 62))


def _cafe(brush: _Brush, choices: random.Random) -> None:
    brush.sky((238, 206, 166), (206, 150, 110))
    brush.box(-0.1, 0.72, 1.1, 1.1, (134, 88, 64))
    x = choices.choice((0.06, 0.66))
    brush.box(x, 0.2, x + 0.28, 0.56, (250, 240, 214))
    brush.box(x + 0.13, 0.2, x + 0.15, 0.56, (170, 124, 92))
    for lamp in (0.3, 0.72):
        brush.box(lamp - 0.006, -0.1, lamp + 0.006, 0.06, (70, 56, 52))
        brush.poly([(lamp - 0.07, 0.13), (lamp + 0.07, 0.13), (lamp + 0.03, 0.05), (lamp - 0.03, 0.05)], (226, 120, 74))


def _snow(brush: _Brush, choices: random.Random) -> None:
    brush.sky((164, 190, 222), (232, 240, 248))
    peak = choices.uniform(0.2, 0.4)
    brush.poly([(-0.1, 0.8), (peak, 0.22), (0.75, 0.8)], (132, 150, 182))
    brush.poly([(0.4, 0.8), (0.85, 0.32), (1.2, 0.8)], (150, 168, 196))
    brush.disc(0.5, 1.2, 0.9, (248, 250, 254), 0.6)
    for _ in range(26):
        brush.draw.ellipse(_flake(choices, brush.size), (255, 255, 255))


def _flake(choices: random.Random, size: int) -> tuple[float, float, float, float]:
    x, y, r = choices.random() * size, choices.random() * size, size * choices.uniform(0.006, 0.012)
    return x - r, y - r, x + r, y + r


_PAINTERS: dict[str, Callable[[_Brush, random.Random], None]] = {
    "in a park": _park,
    "on a beach": _beach,
    "on a street at night": _street,
    "in a library": _library,
    "in a cafe": _cafe,
    "in the snow": _snow,
}

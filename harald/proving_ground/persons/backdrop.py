"""Scenes behind the person, painted with plain shapes; blurred in a photo, inked in a comic."""

import colorsys
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 96
INK = (20, 20, 25)
Colour = tuple[int, int, int]


class Painter:
    """A small canvas of SIDE pixels with jittered colours."""

    def __init__(self, choices: Random, comic: bool):
        self.choices, self.comic = choices, comic
        self.image = Image.new("RGB", (SIDE, SIDE))
        self.draw = ImageDraw.Draw(self.image)

    def between(self, low: float, high: float) -> float:
        return self.choices.uniform(low, high)

    def near(self, *rgb: int, by: int = 14) -> Colour:
        r, g, b = (min(255, max(0, round(value + self.between(-by, by)))) for value in rgb)
        return (r, g, b)

    def hue(self, saturation: float, value: float) -> Colour:
        r, g, b = (round(255 * v) for v in colorsys.hsv_to_rgb(self.choices.random(), saturation, value))
        return (r, g, b)

    def fill(self, colour: Colour) -> None:
        self.draw.rectangle((0, 0, SIDE, SIDE), fill=colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        self.draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), colour, self._ink())

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, inked: bool = True) -> None:
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), colour, self._ink() if inked else None)

    def peak(self, x: float, base: float, half: float, height: float, colour: Colour) -> None:
        self.draw.polygon([(x - half, base), (x, base - height), (x + half, base)], colour, self._ink())

    def _ink(self) -> Colour | None:
        return INK if self.comic else None


def backdrop(scene: str, choices: Random, side: int, comic: bool) -> np.ndarray:
    """float32 [side, side, 3] in 0..1."""
    painter = Painter(choices, comic)
    _PAINTERS[scene](painter)
    image = painter.image
    if not comic:
        image = image.filter(ImageFilter.GaussianBlur(painter.between(1.2, 2.4)))
    image = image.resize((side, side), Image.Resampling.LANCZOS if comic else Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32) / 255


def _park(p: Painter) -> None:
    horizon = p.between(48, 62)
    p.fill(p.near(150, 205, 245))
    p.box(-1, horizon, SIDE, SIDE, p.near(110, 185, 70))
    for x in (p.between(4, 22), p.between(72, 92)):
        p.box(x - 3, horizon - 22, x + 3, horizon + 8, p.near(110, 72, 40))
        p.disc(x, horizon - 30, p.between(13, 18), p.between(14, 19), p.near(60, 150, 60))


def _beach(p: Painter) -> None:
    horizon = p.between(44, 58)
    p.fill(p.near(120, 200, 250))
    p.box(-1, horizon - 18, SIDE, horizon, p.near(20, 120, 190))
    p.box(-1, horizon, SIDE, SIDE, p.near(240, 215, 150))
    x, top = p.choices.choice((p.between(6, 16), p.between(80, 90))), horizon - 16
    p.box(x - 1, top, x + 1, horizon + 30, p.near(240, 240, 240))
    p.draw.pieslice((x - 20, top - 16, x + 20, top + 16), 180, 360, p.near(230, 70, 60), INK if p.comic else None)


def _city(p: Painter) -> None:
    p.fill(p.near(205, 218, 230))
    _houses(p, wall=(165, 155, 150), lit=(120, 165, 205), share=0.9)


def _night(p: Painter) -> None:
    p.fill(p.near(16, 18, 46))
    _houses(p, wall=(40, 40, 66), lit=(255, 220, 110), share=0.55)
    for _ in range(8):
        colour = p.near(255, 150, 60) if p.choices.random() < 0.6 else p.near(255, 80, 140)
        radius = p.between(2, 5)
        p.disc(p.between(0, SIDE), p.between(10, SIDE), radius, radius, colour, inked=False)


def _houses(p: Painter, wall: Colour, lit: Colour, share: float) -> None:
    x = -6.0
    while x < SIDE:
        width, height = p.between(14, 26), p.between(48, 88)
        p.box(x, SIDE - height, x + width, SIDE, p.near(*wall, by=22))
        for top in np.arange(SIDE - height + 4, SIDE - 4, 9):
            for left in np.arange(x + 3, x + width - 4, 7):
                if p.choices.random() < share:
                    p.draw.rectangle((left, top, left + 4, top + 5), fill=lit)
        x += width + p.between(0, 3)


def _office(p: Painter) -> None:
    p.fill(p.near(218, 222, 226))
    for x in (p.between(-6, 2), p.between(66, 74)):
        p.box(x, 12, x + 26, 56, p.near(175, 220, 250))
        for y in range(16, 56, 6):
            p.draw.line((x, y, x + 26, y), fill=(245, 247, 250), width=2)
    p.box(-1, p.between(72, 80), SIDE, SIDE, p.near(150, 110, 75))


def _studio(p: Painter) -> None:
    colour = np.array(p.hue(p.between(0.25, 0.6), p.between(0.55, 0.95)))
    p.fill((int(colour[0]), int(colour[1]), int(colour[2])))
    for ring in range(12, 0, -1):
        light = np.clip(colour * (1.25 - 0.045 * ring), 0, 255).astype(int)
        p.disc(48, 44, ring * 6, ring * 6, (int(light[0]), int(light[1]), int(light[2])), inked=False)


def _forest(p: Painter) -> None:
    p.fill(p.near(46, 84, 44))
    for _ in range(26):
        p.disc(p.between(0, SIDE), p.between(0, 60), p.between(5, 10), p.between(5, 10), p.near(40, 100, 44, by=26))
    for x in (p.between(2, 12), p.between(18, 30), p.between(64, 76), p.between(82, 94)):
        p.box(x - 4, -2, x + 4, SIDE, p.near(84, 58, 38))


def _cafe(p: Painter) -> None:
    p.fill(p.near(140, 92, 62))
    for y in (16, 34):
        p.box(-1, y + 10, SIDE, y + 13, p.near(80, 50, 30))
        for x in range(4, SIDE, 9):
            p.box(x, y, x + 5, y + 10, p.near(225, 215, 200))
    for x in (p.between(8, 20), p.between(76, 88)):
        p.draw.line((x, 0, x, 10), fill=INK, width=1)
        p.disc(x, 14, 8, 6, p.near(255, 220, 130))
    p.box(-1, p.between(64, 74), SIDE, SIDE, p.near(86, 54, 32))


def _mountains(p: Painter) -> None:
    horizon = p.between(60, 70)
    p.fill(p.near(170, 205, 240))
    for x in (p.between(0, 20), p.between(40, 56), p.between(76, 96)):
        height, grey = p.between(34, 54), p.near(118, 124, 152)
        p.peak(x, horizon, height * 0.9, height, grey)
        p.peak(x, horizon - height * 0.62, height * 0.342, height * 0.38, (245, 248, 252))
    p.box(-1, horizon, SIDE, SIDE, p.near(96, 130, 92))


def _sunset(p: Painter) -> None:
    horizon = p.between(58, 70)
    for y in range(SIDE):
        t = min(1.0, y / horizon)
        p.draw.line((0, y, SIDE, y), fill=(round(225 + 30 * t), round(80 + 110 * t), round(110 - 30 * t)))
    p.disc(p.choices.choice((p.between(6, 20), p.between(76, 90))), horizon - 10, 12, 12, (255, 236, 150))
    p.box(-1, horizon, SIDE, SIDE, p.near(88, 52, 92))


def _library(p: Painter) -> None:
    p.fill(p.near(96, 62, 40))
    for shelf in range(0, SIDE, 19):
        x = 0.0
        while x < SIDE:
            width = p.between(4, 8)
            p.box(x, shelf + p.between(0, 4), x + width, shelf + 16, p.hue(0.65, p.between(0.45, 0.75)))
            x += width
        p.box(-1, shelf + 16, SIDE + 1, shelf + 19, p.near(70, 44, 26))


_PAINTERS: dict[str, Callable[[Painter], None]] = {
    "park": _park, "beach": _beach, "city": _city, "office": _office, "studio": _studio, "forest": _forest,
    "night": _night, "cafe": _cafe, "mountains": _mountains, "sunset": _sunset, "library": _library,
}  # fmt: skip

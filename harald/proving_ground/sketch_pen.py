"""A pen that draws turned shapes on a supersampled canvas; comic lines or soft photo shapes."""

import math
from collections.abc import Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Point = tuple[float, float]
INK: Colour = (34, 28, 34)
OVERSAMPLE = 4


def shade(colour: Colour, factor: float) -> Colour:
    """Darker below 1, lighter above."""
    target = 255 if factor > 1 else 0
    part = min(1.0, abs(factor - 1))
    red, green, blue = (round(c + (target - c) * part) for c in colour)
    return red, green, blue


class Pen:
    """Coordinates: the face's centre is (0, 0), its half height 1, y points down; all is turned by `tilt` degrees."""

    def __init__(self, canvas: Image.Image, centre: Point, unit: float, tilt: float, comic: bool):
        self.canvas, self.centre, self.unit, self.comic = canvas, centre, unit, comic
        self.cos, self.sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
        self.line = unit * 0.055

    def at(self, x: float, y: float) -> Point:
        return (
            self.centre[0] + self.unit * (x * self.cos - y * self.sin),
            self.centre[1] + self.unit * (x * self.sin + y * self.cos),
        )

    def shape(self, points: Sequence[Point], fill: Colour, outline: bool = True, soft: bool = True) -> None:
        """Closed and filled. Comic: flat with an ink line; photo: lit from the upper left (`soft`), no line."""
        placed = [self.at(x, y) for x, y in points]
        if self.comic:
            draw = ImageDraw.Draw(self.canvas)
            draw.polygon(placed, fill)
            if outline:
                self._stroke(draw, [*placed, placed[0], placed[1]], INK, self.line)
            return
        mask = Image.new("L", self.canvas.size)
        ImageDraw.Draw(mask).polygon(placed, 255)
        self.canvas.paste(fill, mask=mask)
        if soft and outline:
            self._light(mask, fill)

    def _light(self, mask: Image.Image, fill: Colour) -> None:
        """A blurred copy of the shape, shifted, is its unlit side."""
        reach = self.unit * 0.22
        box = mask.getbbox()
        if box is None:
            return
        pad = int(reach * 2)
        area = (
            max(0, box[0] - pad),
            max(0, box[1] - pad),
            min(mask.width, box[2] + pad),
            min(mask.height, box[3] + pad),
        )
        local = mask.crop(area)
        lit = ImageChops.offset(local, -int(reach * 0.6), -int(reach * 0.6)).filter(ImageFilter.BoxBlur(reach))
        dark = ImageChops.multiply(local, ImageChops.invert(lit))
        region = self.canvas.crop(area)
        region.paste(shade(fill, 0.62), mask=dark)
        self.canvas.paste(region, area[:2])

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: Colour, outline: bool = True, soft: bool = True
    ) -> None:
        self.shape(oval(x, y, rx, ry), fill, outline, soft)

    def stroke(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """An open line with round ends; width in face half heights."""
        self._stroke(ImageDraw.Draw(self.canvas), [self.at(x, y) for x, y in points], colour, width * self.unit)

    @staticmethod
    def _stroke(draw: ImageDraw.ImageDraw, points: list[Point], colour: Colour, width: float) -> None:
        draw.line(points, colour, max(1, round(width)), joint="curve")
        for x, y in (points[0], points[-1]):
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), colour)


def oval(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360, steps: int = 48) -> list[Point]:
    """Points of an arc, clockwise from the right, degrees."""
    angles = (math.radians(start + (end - start) * i / steps) for i in range(steps + 1))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def face_outline(width: float, jaw: float) -> list[Point]:
    """An egg: rounder than an ellipse, narrower towards the chin by `jaw`."""
    points = []
    for i in range(72):
        angle = 2 * math.pi * i / 72
        c, s = math.cos(angle), math.sin(angle)
        x, y = math.copysign(abs(c) ** 0.85, c), math.copysign(abs(s) ** 0.92, s)
        points.append((x * width * (1 - jaw * max(0.0, y) ** 2), y))
    return points

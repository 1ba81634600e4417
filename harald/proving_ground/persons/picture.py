"""One view of a figure -> pixels and the region that every pixel shows."""

import colorsys
import math
from dataclasses import dataclass
from random import Random

import numpy as np
from scipy import ndimage

from harald.proving_ground.persons import look as looks
from harald.proving_ground.persons.backdrop import backdrop
from harald.proving_ground.persons.figure import Figure
from harald.proving_ground.persons.head import (
    BODY,
    EYES,
    INSIDE_MOUTH,
    TRIANGLES,
    VERTEX_PARTS,
    VERTICES,
    Floats,
    Part,
    morph,
)
from harald.proving_ground.persons.identity import EYES as EYE_COLOURS
from harald.proving_ground.persons.identity import Identity
from harald.proving_ground.persons.look import PATTERNS, RGB, Look
from harald.proving_ground.persons.materials import Knobs, Materials
from harald.proving_ground.persons.raster import normals, rasterise
from harald.proving_ground.persons.shading import Lights, ink, shade
from harald.proving_ground.persons.view import View
from harald.proving_ground.persons.worn import necklines

OVERSAMPLE = 2
_DISTANCE = 16.0  # of the camera
_SHADOW_SIDE = 160
# A picture shows everybody from here to the top of the head, whatever the size of the head, with room for what stands
# above it. All in decimetres; view.half_height is meant for the usual head.
_LOWEST, _USUAL = 5.35, 3.2
_ABOVE = {"bun": 0.35, "mohawk": 0.30, "afro": 0.25, "curly": 0.1, "hat": 0.15, "beanie": 0.1}
# MakeHuman face units and their weights. '*' stands for Left and Right.
_UNITS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smiling": {"mouthSmile*": 1.25, "cheekSquint*": 0.8, "mouthDimple*": 0.5},
    "laughing": {"mouthSmile*": 1.1, "jawOpen": 0.5, "mouthUpperUp*": 0.6, "cheekSquint*": 0.9, "eyeSquint*": 0.7},
    "surprised": {"jawOpen": 0.6, "mouthFunnel": 0.5, "eyeWide*": 1.3, "browInnerUp": 1.1, "browOuterUp*": 1.1},
    "angry": {"browDown*": 1.3, "noseSneer*": 0.8, "mouthFrown*": 0.7, "mouthPress*": 0.7, "eyeSquint*": 0.5},
    "sad": {"mouthFrown*": 1.3, "browInnerUp": 1.3, "mouthShrugLower": 0.5},
    "winking": {"eyeBlinkLeft": 1.05, "cheekSquintLeft": 0.8, "mouthSmileLeft": 1.1, "mouthSmileRight": 0.5},
    "sleeping": {"eyeBlink*": 1.05},
}
# (slope, lift) of the painted brows
_BROWS = {"surprised": (0.0, 1.6), "angry": (1.9, -1.2), "sad": (-1.9, 0.7), "laughing": (0, 0.5), "smiling": (0, 0.3)}


@dataclass(frozen=True)
class Picture:
    """image: uint8 [s, s, 3]. detail: uint8 [s, s], how much of a pixel glasses, jewellery and eyes cover (255: all of
    it), and half as much for the mouth; worn: the same of glasses and jewellery alone. pixels: how many show each part,
    as if the picture were 128 x 128.
    """

    image: np.ndarray
    detail: np.ndarray
    worn: np.ndarray
    pixels: dict[Part, float]


_WORN = (Part.FRAME, Part.EARRING, Part.EARRING_GEM, Part.NECKLACE, Part.NECKLACE_GEM)
_SMALL = (*_WORN, Part.EYE, Part.LASH)
_MOUTH = (Part.LIPS, Part.TEETH, Part.MOUTH)


def draw(identity: Identity, look: Look, figure: Figure, view: View, side: int) -> Picture:
    """A pure function; the same bytes for the same arguments."""
    comic = view.domain == "comic"
    scene = _Scene(figure, look, _expressed(figure, look, view), view)
    size = side * OVERSAMPLE
    points = scene.projected(view, size)
    depth = np.full((size, size), -1e9, np.float32)
    hit = np.full((size, size), -1, np.int32)
    first, second = np.zeros((2, size, size), np.float32)
    rasterise(points, scene.triangles, depth, hit, first, second)
    canvas = backdrop(view.scene, Random(view.backdrop_seed), size, comic)
    lights = _lights(view, canvas, comic)
    shadow_matrix, shadow_depth = scene.shadow_map(lights, figure)
    regions, facing = np.zeros((size, size), np.int8), np.zeros((size, size, 3), np.float32)
    shade(hit, first, second, scene.triangles, scene.parts, scene.normals, figure.canonical, figure.attributes,
          scene.vertices, EYES, _materials(identity, look, comic), _knobs(identity, look, view, comic), lights, comic,
          shadow_matrix, shadow_depth, canvas, regions, facing)  # fmt: skip
    if comic:
        lines = ndimage.maximum_filter(ink(regions, depth, facing, np.float32(0.16)), size=max(2, round(size / 128)))
        canvas = canvas * (1 - lines[..., None]) + np.array([0.05, 0.04, 0.08], np.float32) * lines[..., None]
    canvas = _shrunk(np.clip(canvas, 0, 1.5))
    if not comic:
        canvas = _developed(canvas, view)
    weight, worn = np.zeros((2, len(Part)), np.float32)
    weight[list(_SMALL)], weight[list(_MOUTH)], worn[list(_WORN)] = 1.0, 0.5, 1.0
    counts = np.bincount(regions.ravel(), minlength=len(Part)) * (128 / size) ** 2
    return Picture(
        image=(np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8),
        detail=_covered(weight[regions]),
        worn=_covered(worn[regions]),
        pixels={part: float(counts[part]) for part in Part},
    )


def _expressed(figure: Figure, look: Look, view: View) -> Floats:
    """[n, 3]: the face with its expression, gaze, teeth, beard and clothes."""
    vertices = figure.vertices.copy()
    strength = view.strength * (1.15 if view.domain == "comic" else 1.0)
    jaw = _UNITS[view.expression].get("jawOpen", 0.0) * strength
    for unit, weight in _UNITS[view.expression].items():
        for name in (unit.replace("*", "Left"), unit.replace("*", "Right")) if "*" in unit else (unit,):
            blink = "Blink" in name
            morph(vertices, f"ex/{name}", weight * (1.0 if blink else strength))
    gaze = _rotation(*view.gaze, 0.0)
    for side, centre in zip((VERTICES[:, 0] > 0, VERTICES[:, 0] < 0), figure.eyes, strict=True):
        ball = (VERTEX_PARTS == Part.EYE) & side
        vertices[ball] = (vertices[ball] - centre) @ gaze.T + centre
    inside = INSIDE_MOUTH > 0.5
    middle = vertices[inside].mean(0)
    vertices[inside] = middle + (vertices[inside] - middle) * _vector(0.80, 0.88, 0.92) - _vector(0, 0, 0.05)
    vertices += figure.beard_shift
    teeth, tongue = np.flatnonzero(VERTEX_PARTS == Part.TEETH), np.flatnonzero(VERTEX_PARTS == Part.TONGUE)
    lower, upper = teeth[: len(teeth) // 2], teeth[len(teeth) // 2 :]
    vertices[lower] += _vector(0, -0.02 - 0.20 * jaw, -0.10 - 0.12 * jaw)
    vertices[upper] += _vector(0, 0, -0.02)
    vertices[tongue] += _vector(0, -0.16 * jaw, -0.06 - 0.05 * jaw)
    return vertices + normals(vertices, TRIANGLES) * figure.cloth[:, None]


class _Scene:
    """All triangles of a view in the camera's turn, with what the shader asks of every vertex."""

    def __init__(self, figure: Figure, look: Look, vertices: Floats, view: View):
        self.figure = figure
        self.triangles, self.parts = figure.triangles, figure.parts
        everything = np.concatenate([vertices, figure.things])
        self.pivot = _vector(0, 6.05, 0.25) + figure.rise
        self.rise = float(figure.rise[1])
        self.top = float(figure.vertices[BODY, 1].max()) + _ABOVE.get(look.hair, 0.0) + _ABOVE.get(look.headwear, 0.0)
        share = figure.turning
        turn = _rotation(view.yaw - view.body_yaw, view.pitch, view.roll)
        turned = (everything - self.pivot) @ turn.T + self.pivot
        everything = (everything * (1 - share) + turned * share) @ _rotation(view.body_yaw, 0, 0).T
        self.vertices = everything.astype(np.float32)
        self.normals = normals(self.vertices, self.triangles)

    def projected(self, view: View, size: int) -> Floats:
        """[n, 3] pixels, perspective."""
        lowest = _LOWEST + self.rise
        shown = self.top - lowest
        q = self.vertices - _vector(view.shift[0], lowest + shown / 2 + view.shift[1], 0.5)
        scale = _DISTANCE / (_DISTANCE - q[:, 2]) * (size / 2 / (view.half_height * shown / _USUAL))
        return np.stack([size / 2 + q[:, 0] * scale, size / 2 - q[:, 1] * scale, q[:, 2]], 1).astype(np.float32)

    def shadow_map(self, lights: Lights, figure: Figure) -> tuple[Floats, Floats]:
        """A matrix [3, 4] from space to the map, and the map's depth."""
        key = np.array(lights.key)
        right = np.cross([0, 1, 0], key)
        right /= np.linalg.norm(right)
        up, scale, half = np.cross(key, right), _SHADOW_SIDE / 5.2, _SHADOW_SIDE / 2
        centre = np.array([0, 6.9 + figure.rise[1], 0.4])
        matrix = np.zeros((3, 4), np.float32)
        matrix[:, :3] = right * scale, -up * scale, key
        matrix[:2, 3] = half - matrix[:2, :3] @ centre
        points = (self.vertices @ matrix[:, :3].T + matrix[:, 3]).astype(np.float32)
        depth = np.full((_SHADOW_SIDE, _SHADOW_SIDE), -1e9, np.float32)
        unused = np.zeros((_SHADOW_SIDE, _SHADOW_SIDE), np.float32)
        rasterise(
            points, self.triangles[self.parts != Part.LASH], depth, unused.astype(np.int32), unused, unused.copy()
        )
        return matrix, depth


def _vector(*values: float) -> Floats:
    return np.array(values, np.float32)


def _rotation(yaw: float, pitch: float, roll: float) -> Floats:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return (turn @ np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])).astype(np.float32)


def _unit(x: float, y: float, z: float) -> RGB:
    length = math.sqrt(x * x + y * y + z * z)
    return (x / length, y / length, z / length)


def _lights(view: View, canvas: Floats, comic: bool) -> Lights:
    azimuth, elevation = view.light
    key = _unit(math.sin(azimuth) * math.cos(elevation), math.sin(elevation), math.cos(azimuth) * math.cos(elevation))
    w, strength = view.warmth, 0.80 * view.brightness
    around = np.full(3, 0.4) if comic else 0.34 + 0.24 * canvas.mean((0, 1))
    return Lights(
        key=key,
        fill=_unit(-key[0], 0.1, 0.6),
        half=_unit(key[0], key[1], key[2] + 1),
        key_rgb=(strength * (1 + w), strength, strength * (1 - w)),
        fill_rgb=(0.18 * (1 - w), 0.18, 0.18 * (1 + w)),
        ambient_rgb=(float(around[0]), float(around[1]), float(around[2])),
    )


def _vivid(colour: RGB, saturation: float, value: float, lift: float = 0.0) -> RGB:
    h, s, v = colorsys.rgb_to_hsv(*colour)
    return colorsys.hsv_to_rgb(h, min(1, s * saturation), min(1, v * value + lift))


def _stone(name: str) -> RGB:
    return looks.PEARL if name == "pearl" else looks.GEMS.get(name, looks.METALS.get(name, looks.PEARL))


def _materials(identity: Identity, look: Look, comic: bool) -> Materials:
    hair = looks.HAIR_COLOURS[look.hair_colour]
    natural = looks.HAIR_COLOURS[identity.natural_hair]
    beard = hair if look.hair_colour in looks.NATURAL else natural
    beard = (beard[0] * 0.8, beard[1] * 0.8, beard[2] * 0.8)
    skin = identity.skin
    if comic:
        skin, hair, beard = _vivid(skin, 1.15, 1.08), _vivid(hair, 1.15, 1.2, 0.05), _vivid(beard, 1.15, 1.2, 0.03)
    cloth = looks.COLOURS[look.clothes_colour]
    dark = max(cloth) < 0.3
    trim = tuple(min(1.0, c * 0.5 + (0.45 if dark else 0.0)) for c in cloth)
    head = looks.COLOURS[look.headwear_colour]
    lips = (identity.skin[0] * 0.84, identity.skin[1] * 0.60, identity.skin[2] * 0.58)
    return Materials(
        skin=skin,
        lips=looks.LIPSTICKS.get(look.lipstick, lips),
        shadow=looks.SHADOWS[look.shadow],
        iris=EYE_COLOURS[identity.eyes],
        brow=(natural[0] * 0.6, natural[1] * 0.6, natural[2] * 0.6),
        hair=hair,
        tips=looks.HAIR_COLOURS.get(look.tips, hair),
        beard=beard,
        cloth=cloth,
        trim=(trim[0], trim[1], trim[2]),
        frame=looks.FRAMES[look.frame],
        lens=(0.04, 0.04, 0.05),
        earring=looks.METALS.get(look.earring, looks.METALS["gold"]),
        earring_gem=_stone(look.earring),
        necklace=looks.METALS[look.metal],
        necklace_gem=looks.PEARL if look.necklace == "pearls" else looks.GEMS[look.gem],
        headwear=head,
        band=(head[0] * 0.55, head[1] * 0.55, head[2] * 0.55),
    )


def _knobs(identity: Identity, look: Look, view: View, comic: bool) -> Knobs:
    collar, dip, _ = necklines(look.clothes)
    slope, lift = _BROWS.get(view.expression, (0.0, 0.0))
    made_up = 1.0 if look.lipstick else 0.0
    hidden = look.headwear not in ("none", "headband")
    return Knobs(
        ruddy=identity.ruddy,
        makeup=made_up,
        freckles=identity.freckles,
        brow_thickness=identity.brow[0],
        brow_arch=identity.brow[1],
        brow_slope=identity.brow[2] + slope * view.strength,
        brow_lift=lift * view.strength,
        iris=identity.iris * (1.12 if comic else 1.0),
        mole=identity.mole,
        scalp=0.0 if look.hair == "bald" or (hidden and look.headwear == "headscarf") else 0.8,
        beard={"none": 0.0, "stubble": 0.62}.get(look.beard, 1.0),
        wave=1.0 if look.hair == "wavy" else 0.15,
        curls=1.0 if look.hair in ("curly", "afro") else 0.0,
        tips=1.0 if look.tips else 0.0,
        pattern=PATTERNS.index(look.pattern),
        collar=collar,
        dip=dip,
        sleeveless=1.0 if look.clothes == "tank top" else 0.0,
        opened=1.0 if look.clothes == "jacket" else 0.0,
        ribs=1.0 if look.headwear == "beanie" else 0.0,
        band_below={"beanie": 7.92, "hat": 8.08}.get(look.headwear, 0.0),
    )


def _shrunk(pixels: Floats) -> Floats:
    parts = [pixels[y::OVERSAMPLE, x::OVERSAMPLE] for y in range(OVERSAMPLE) for x in range(OVERSAMPLE)]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total / np.float32(OVERSAMPLE**2)


def _covered(weights: Floats) -> np.ndarray:
    """uint8 of a picture's pixels, 255 where all that shrinks to one weighs 1."""
    return (_shrunk(weights[..., None])[..., 0] * 255).astype(np.uint8)


def _developed(light: Floats, view: View) -> Floats:
    """From light to the tones of a photo: a soft shoulder, white balance, vignette, gamma, no grain."""
    line = np.linspace(-1, 1, light.shape[0], dtype=np.float32) ** 2
    light = light * 1.28 / (1 + 0.28 * light)
    light = light * _vector(1 + view.warmth * 0.4, 1, 1 - view.warmth * 0.4)
    light = light * (1 - 0.10 * (line[:, None] + line[None, :]))[..., None]
    return np.clip(light, 0, 1) ** np.float32(1 / 1.2)

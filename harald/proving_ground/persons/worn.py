"""Glasses, earrings and necklaces as meshes in the person's own space, large enough to be seen at 128 px."""

import numpy as np
from scipy.spatial import KDTree

from harald.proving_ground.persons.head import BODY, EARS, VERTICES, Floats, Part, smoothstep
from harald.proving_ground.persons.look import Look
from harald.proving_ground.persons.solids import Mesh, sphere, tube

Piece = tuple[Mesh, Part]

_HALF_HEIGHT = {"round": 0.25, "square": 0.175, "sunglasses": 0.21}
_SQUARENESS = {"round": 2.0, "square": 5.0, "sunglasses": 3.4}
_RIM = 0.027
_HALF_WIDTH = 0.25
_NECK = KDTree(VERTICES[BODY & (VERTICES[:, 1] < 6.35) & (VERTICES[:, 1] > 4.6)])
_NECK_INDEX = np.flatnonzero(BODY & (VERTICES[:, 1] < 6.35) & (VERTICES[:, 1] > 4.6))


def glasses(look: Look, eyes: Floats, temples: Floats, comic: bool) -> list[Piece]:
    """eyes: [2, 3] centres; temples: [2, 3] where the arms end."""
    if look.glasses == "none":
        return []
    rim = _RIM * (1.3 if comic else 1.0)
    depth = eyes[:, 2].mean() + 0.27
    apart, height = max(0.31, abs(eyes[0, 0] - eyes[1, 0]) / 2), eyes[:, 1].mean() - 0.02
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    power = 2 / _SQUARENESS[look.glasses]
    x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power * _HALF_WIDTH
    y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power * _HALF_HEIGHT[look.glasses]
    pieces: list[Piece] = []
    for side, temple in zip((1, -1), temples, strict=True):
        across = side * (apart + x)
        rims = np.stack([across, height + y, depth - 0.25 * (np.abs(across) - 0.1).clip(0) ** 2], 1)
        pieces.append((tube(rims, rim, closed=True), Part.FRAME))
        if look.glasses == "sunglasses":
            fan = np.array([[0, i + 1, (i + 1) % 36 + 1] for i in range(36)], np.int32)
            pieces.append(((np.concatenate([rims.mean(0)[None], rims]).astype(np.float32), fan), Part.LENS))
        hinge = np.array([side * (apart + _HALF_WIDTH), height + 0.06, depth - 0.25 * (apart + _HALF_WIDTH - 0.1) ** 2])
        t = np.linspace(0, 1, 8)[:, None]
        pieces.append((tube(hinge * (1 - t) + temple * np.array([1.03, 1, 1]) * t, rim * 0.9, False), Part.FRAME))
    t = np.linspace(-1, 1, 7)
    bridge = np.stack([t * (apart - _HALF_WIDTH), height + 0.05 + 0.03 * (1 - t**2), depth + 0.02 + 0 * t], 1)
    return [*pieces, (tube(bridge, rim * 0.9, False), Part.FRAME)]


def earrings(look: Look, vertices: Floats) -> list[Piece]:
    """At the lowest point of each ear."""
    if look.earrings == "none":
        return []
    pieces: list[Piece] = []
    stone = Part.EARRING if look.earring in ("gold", "silver") else Part.EARRING_GEM
    for side in (1, -1):
        ear = np.flatnonzero(EARS & (VERTICES[:, 0] * side > 0))
        lobe = vertices[ear[np.argmin(VERTICES[ear, 1])]] + np.array([side * 0.06, 0.05, 0.04])
        if look.earrings == "studs":
            pieces.append((sphere(lobe, 0.125), stone))
        elif look.earrings == "hoops":
            radius, turn = 0.28, np.linspace(0, 2 * np.pi, 24, endpoint=False)
            ring = np.stack([np.cos(turn) * 0.8 * side, np.sin(turn), np.cos(turn) * 0.6], 1)
            pieces.append((tube(lobe + np.array([0, -radius, 0]) + radius * ring, 0.050, closed=True), Part.EARRING))
        else:
            pieces.append((tube(np.array([lobe, lobe - [0, 0.16, 0]]), 0.03, False), Part.EARRING))
            pieces.append((sphere(lobe - np.array([0, 0.19, 0]), 0.10), stone))
            pieces.append((sphere(lobe - np.array([0, 0.36, 0]), 0.14), stone))
    return pieces


def necklace(look: Look, vertices: Floats, lift: Floats) -> list[Piece]:
    """Around the neck, on the skin or on the cloth. lift: [n] thickness of what is worn at each vertex."""
    if look.necklace == "none":
        return []
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    drop = {"chain": 0.44, "pearls": 0.36, "pendant": 0.30}[look.necklace]
    path = np.stack(
        [0.74 * np.sin(turn), 6.02 - drop * (0.5 + 0.5 * np.cos(turn)) ** 1.5, 0.28 + 0.85 * np.cos(turn)], 1
    )
    distance, near = _NECK.query(path, k=4)
    weight = 1 / (distance + 0.02) ** 2
    weight /= weight.sum(1, keepdims=True)
    points = (vertices[_NECK_INDEX[near]] * weight[..., None]).sum(1)
    raised = (lift[_NECK_INDEX[near]] * weight).sum(1)
    for _ in range(4):
        points = 0.25 * np.roll(points, 1, 0) + 0.5 * points + 0.25 * np.roll(points, -1, 0)
        raised = np.maximum(raised, 0.25 * np.roll(raised, 1) + 0.5 * raised + 0.25 * np.roll(raised, -1))
    outwards = np.stack([np.sin(turn), 0.35 + 0 * turn, np.cos(turn)], 1)
    points = points + outwards * (0.06 + raised)[:, None]
    if look.necklace == "pearls":
        return [(sphere(point, 0.092, 6), Part.NECKLACE_GEM) for point in points[::2]]
    chain: list[Piece] = [(tube(points, 0.050, closed=True, sides=6), Part.NECKLACE)]
    if look.necklace == "pendant":
        chain.append((sphere(points[0] + np.array([0, -0.14, 0.05]), 0.17), Part.NECKLACE_GEM))
    return chain


def necklines(clothes: str) -> tuple[float, float, float]:
    """Height of the collar, how deep it dips in front, thickness of the cloth."""
    return {
        "t-shirt": (5.98, 0.28, 0.05),
        "sweater": (6.06, 0.12, 0.09),
        "hoodie": (6.12, 0.22, 0.12),
        "tank top": (5.75, 0.45, 0.03),
        "jacket": (6.0, 0.75, 0.11),
    }[clothes]


def cloth_thickness(clothes: str) -> Floats:
    """[n]: how far the cloth stands off the skin, 0 above the neckline."""
    collar, dip, thickness = necklines(clothes)
    x, y, z = VERTICES.T
    line = collar - dip * np.exp(-((x / 0.42) ** 2)) * np.where(z > 0.25, 1, 0.25)
    share = np.where(BODY & (y < 6.25), smoothstep(0.06, -0.06, y - line), 0)
    if clothes == "tank top":
        share = share * smoothstep(1.16, 1.04, np.abs(x))
    return (share * thickness).astype(np.float32)

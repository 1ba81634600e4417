"""Solids as signed distances on a grid around the head, and as tubes and spheres; all become meshes."""

from functools import cache

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import marching_cubes

from harald.proving_ground.persons.head import (
    BODY,
    EARS,
    INSIDE_MOUTH,
    TRIANGLE_PARTS,
    TRIANGLES,
    VERTICES,
    Floats,
    Ints,
    Part,
    hairline,
)
from harald.proving_ground.persons.raster import normals

Mesh = tuple[Floats, Ints]  # vertices [n, 3], triangles [m, 3]

_AXES = [
    np.linspace(low, high, count, dtype=np.float32)
    for low, high, count in ((-1.75, 1.75, 60), (4.2, 9.5, 92), (-1.55, 2.0, 60))
]
X, Y, Z = np.meshgrid(*_AXES, indexing="ij")
ANGLE = np.arctan2(np.abs(X), Z - 0.35)  # 0 in front, pi at the back
HAIRLINE = hairline(ANGLE)
SHAPE = X.shape


def _distance_to_head() -> Floats:
    """Signed distance to skin without ears and the inside of the mouth, negative inside."""
    skin = (TRIANGLE_PARTS == Part.SKIN) | (TRIANGLE_PARTS == Part.MOUTH)
    direction = normals(VERTICES.copy(), np.ascontiguousarray(TRIANGLES[skin]))
    chosen = np.flatnonzero(BODY & (INSIDE_MOUTH < 0.2) & ~EARS)
    grid = np.stack([X, Y, Z], -1).reshape(-1, 3)
    distance, nearest = KDTree(VERTICES[chosen]).query(grid, k=3)
    along = ((grid[:, None] - VERTICES[chosen][nearest]) * direction[chosen][nearest]).sum(-1)
    sign = np.where(along.mean(1) < 0, -1, 1)
    return (sign * np.minimum(distance[:, 0], np.abs(along).mean(1))).reshape(SHAPE).astype(np.float32)


HEAD = _distance_to_head()


@cache
def _noise_block(frequency: float) -> Floats:
    """Smooth noise that tiles, once per process; a state takes a rolled view of it."""
    coarse = [max(4, round(n * frequency)) for n in SHAPE]
    values = np.random.default_rng(round(frequency * 1000)).standard_normal(coarse)
    padded = ndimage.zoom(values, [n / c for n, c in zip(SHAPE, coarse, strict=True)], order=1, mode="grid-wrap")
    return padded[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.float32)


def rough(seed: int, frequency: float) -> Floats:
    """Noise of standard deviation about 0.6 over the grid; `frequency` cells per grid point."""
    shift = np.random.default_rng(seed).integers(0, SHAPE)
    return np.roll(_noise_block(frequency), tuple(int(s) for s in shift), (0, 1, 2))


def capsule(start: tuple[float, float, float], end: tuple[float, float, float], r0: float, r1: float) -> Floats:
    """Distance to a rod from start to end, radius r0 at its start and r1 at its end."""
    a, ab = np.asarray(start, np.float32), np.subtract(end, start).astype(np.float32)
    t = np.clip(((X - a[0]) * ab[0] + (Y - a[1]) * ab[1] + (Z - a[2]) * ab[2]) / (ab @ ab), 0, 1)
    apart = np.sqrt((X - a[0] - t * ab[0]) ** 2 + (Y - a[1] - t * ab[1]) ** 2 + (Z - a[2] - t * ab[2]) ** 2)
    return apart - (r0 + (r1 - r0) * t)


def ball(x: float, y: float, z: float, radius: float) -> Floats:
    return np.sqrt((X - x) ** 2 + (Y - y) ** 2 + (Z - z) ** 2) - radius


def surface(distance: Floats) -> Mesh:
    """Marching cubes of distance < 0 without crumbs and without what lies inside the head."""
    if distance.min() >= 0:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    lumps, count = ndimage.label(distance < 0)
    if count > 1:
        sizes = np.bincount(lumps.ravel())
        distance = np.where((lumps > 0) & (sizes[lumps] < 80), 0.05, distance)
        if distance.min() >= 0:
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    points, faces, _, _ = marching_cubes(np.pad(distance, 1, constant_values=1.0), 0.0)
    points = points - 1
    buried = ndimage.map_coordinates(HEAD, points.T, order=1) < -0.03
    faces = faces[~buried[faces].all(1)]
    used, compact = np.unique(faces, return_inverse=True)
    origin = np.array([axis[0] for axis in _AXES])
    spacing = np.array([axis[1] - axis[0] for axis in _AXES])
    vertices = origin + points[used] * spacing
    return vertices.astype(np.float32), compact.reshape(-1, 3)[:, ::-1].astype(np.int32)


def tube(points: Floats, radius: float, closed: bool, sides: int = 7) -> Mesh:
    """A pipe along points [m, 3]."""
    points = np.asarray(points, np.float32)
    along = np.roll(points, -1, 0) - np.roll(points, 1, 0) if closed else np.gradient(points, axis=0)
    along = along / (np.linalg.norm(along, axis=1, keepdims=True) + 1e-9)
    across = np.cross(along, np.array([0.31, 0.17, 0.93]))
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    up = np.cross(along, across)
    turn = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = np.cos(turn)[None, :, None] * across[:, None] + np.sin(turn)[None, :, None] * up[:, None]
    vertices = (points[:, None] + radius * ring).reshape(-1, 3)
    return vertices.astype(np.float32), _quads(len(points), sides, closed)


def sphere(centre: Floats, radius: float, rings: int = 8) -> Mesh:
    polar = np.linspace(0, np.pi, rings)[:, None]
    turn = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    flat = [np.sin(polar) * np.cos(turn), np.cos(polar) + 0 * turn, np.sin(polar) * np.sin(turn)]
    vertices = np.stack(flat, -1).reshape(-1, 3) * radius + np.asarray(centre)
    return vertices.astype(np.float32), _quads(rings, 2 * rings, closed=False)


def _quads(rows: int, columns: int, closed: bool) -> Ints:
    i, j = np.arange(rows if closed else rows - 1)[:, None], np.arange(columns)[None]
    below, right = (i + 1) % rows, (j + 1) % columns
    corners = [i * columns + j, below * columns + j, below * columns + right, i * columns + right]
    quads = np.stack(np.broadcast_arrays(*corners), -1).reshape(-1, 4)
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)


def grid_place(points: Floats) -> Floats:
    """[3, n]: points [n, 3] in steps of the grid, for map_coordinates."""
    origin = np.array([axis[0] for axis in _AXES])
    spacing = np.array([axis[1] - axis[0] for axis in _AXES])
    return ((points - origin) / spacing).T

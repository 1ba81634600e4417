"""A person in a state as geometry, before expression and pose: built once, drawn in many views."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from harald.proving_ground.persons import worn
from harald.proving_ground.persons.hair import hair
from harald.proving_ground.persons.head import (
    BODY,
    EARS,
    EYES,
    INSIDE_MOUTH,
    LIPS,
    TRIANGLE_PARTS,
    TRIANGLES,
    VERTEX_PARTS,
    VERTICES,
    Floats,
    Ints,
    Part,
    beard_mask,
    morph,
    scalp_mask,
    smoothstep,
)
from harald.proving_ground.persons.headwear import headwear, under_headwear
from harald.proving_ground.persons.identity import MIXES, Identity
from harald.proving_ground.persons.look import Look
from harald.proving_ground.persons.raster import noise_of, normals
from harald.proving_ground.persons.solids import HEAD, grid_place, surface


@dataclass(frozen=True)
class Figure:
    """vertices: [n, 3] of the bare head, things: [m, 3] worn and grown. The rest is about all n + m of them."""

    vertices: Floats
    things: Floats
    beard_shift: Floats  # [n, 3] added after the expression
    cloth: Floats  # [n] thickness
    eyes: Floats  # [2, 3]
    canonical: Floats  # [n + m, 3]
    attributes: Floats  # [n + m, 4], see shading.shade
    turning: Floats  # [n + m, 1], how much of the head's turn a vertex follows
    triangles: Ints  # [k, 3]
    parts: np.ndarray  # [k]

    @property
    def rise(self) -> Floats:
        """[3]: how far this head's eyes lie from the canonical ones."""
        shift = self.eyes.mean(0) - EYES.mean(0)
        return np.array([0, shift[1], shift[2]], np.float32)


@dataclass(frozen=True)
class Grown:
    """Hair and headwear: a surface on the canonical head, and the six vertices of skin that each point follows."""

    points: Floats  # [m, 3]
    faces: Ints
    part: Part
    near: np.ndarray  # [m, 6]
    weight: Floats  # [m, 6]


_SKIN = BODY & (INSIDE_MOUTH < 0.2)
_SKIN_TREE = KDTree(VERTICES[_SKIN])
_TEMPLES = np.array([[0.80, 7.33, 0.52], [-0.80, 7.33, 0.52]], np.float32)


def grown(look: Look) -> list[Grown]:
    """The same on every head: the costly part of a figure."""
    body, shape = (under_headwear(look.headwear, solid) for solid in hair(look))
    solids = ((body, Part.HAIR), (shape, Part.HAIR_SHAPE), (headwear(look.headwear, body), Part.HEADWEAR))
    surfaces = [(*surface(solid), part) for solid, part in solids if solid is not None]
    return [Grown(points, faces, part, *_nearest(points)) for points, faces, part in surfaces if len(points)]


def _nearest(points: Floats) -> tuple[np.ndarray, Floats]:
    distance, near = _SKIN_TREE.query(points, k=6)
    weight = 1 / (distance + 0.05) ** 2
    return near, weight / weight.sum(1, keepdims=True)


_TEMPLES_NEAR = _nearest(_TEMPLES)


def build_figure(identity: Identity, look: Look, comic: bool, solids: list[Grown]) -> Figure:
    """solids: grown(look)."""
    vertices = _face(identity, comic)
    moved = (vertices - VERTICES)[_SKIN]

    def follow(points: Floats, near: np.ndarray, weight: Floats) -> Floats:
        return (points + (moved[near] * weight[..., None]).sum(1)).astype(np.float32)

    eyes = np.stack(
        [vertices[(VERTEX_PARTS == Part.EYE) & s].mean(0) for s in (VERTICES[:, 0] > 0, VERTICES[:, 0] < 0)]
    )
    cloth = worn.cloth_thickness(look.clothes)
    rise = np.array([0, *(eyes.mean(0) - EYES.mean(0))[1:]])
    temples = follow(_TEMPLES, *_TEMPLES_NEAR)
    pieces = worn.glasses(look, eyes, temples, comic) + worn.earrings(look, vertices)
    pieces += worn.necklace(look, vertices, cloth)
    meshes = [(mesh[0], mesh[0] - rise, mesh[1], part) for mesh, part in pieces]
    meshes += [(follow(s.points, s.near, s.weight), s.points, s.faces, s.part) for s in solids]
    mask = beard_mask(look.beard)
    skin = np.stack([LIPS, mask, scalp_mask(look.receding), EARS], 1)
    return Figure(
        vertices=vertices,
        beard_shift=_beard_shift(look, vertices, mask),
        cloth=cloth,
        eyes=eyes,
        **_joined(meshes, skin, lashes=bool(look.lipstick)),
    )


def _joined(meshes: list[tuple[Floats, Floats, Ints, Part]], skin: Floats, lashes: bool) -> dict:
    """The head and all meshes as one."""
    nothing = np.zeros((0, 3), np.float32)
    meshes = [*meshes, (nothing, nothing, np.zeros((0, 3), np.int32), Part.BACKGROUND)]
    starts = len(VERTICES) + np.cumsum([0, *(len(points) for points, *_ in meshes)])
    kept = TRIANGLE_PARTS != Part.BACKGROUND
    if not lashes:
        kept = kept & (TRIANGLE_PARTS != Part.LASH)
    places = np.concatenate([place for _, place, *_ in meshes]).astype(np.float32)
    canonical = np.concatenate([VERTICES, places])
    attributes = np.zeros((len(canonical), 4), np.float32)
    attributes[: len(VERTICES)] = skin
    attributes[len(VERTICES) :, 2] = ndimage.map_coordinates(HEAD, grid_place(places), order=1)
    triangles = [TRIANGLES[kept], *((f + s) for (_, _, f, _), s in zip(meshes, starts, strict=False))]
    return {
        "things": np.concatenate([points for points, *_ in meshes]).astype(np.float32),
        "canonical": canonical,
        "attributes": attributes,
        "turning": smoothstep(5.75, 6.45, canonical[:, 1])[:, None],
        "triangles": np.ascontiguousarray(np.concatenate(triangles).astype(np.int32)),
        "parts": np.concatenate([TRIANGLE_PARTS[kept], *(np.full(len(f), part, np.int8) for *_, f, part in meshes)]),
    }


def _face(identity: Identity, comic: bool) -> Floats:
    """The identity's targets. A comic draws the same person with larger eyes and stronger features."""
    vertices = VERTICES.copy()
    sexes = (("male", identity.gender), ("female", 1 - identity.gender))
    ages = (("young", 1 - identity.age), ("old", identity.age))
    heavy = "maxweight" if identity.weight > 0 else "minweight"
    for sex, sex_share in sexes:
        for age, age_share in ages:
            for mix, share in zip(MIXES, identity.mix, strict=True):
                morph(vertices, f"mac/{mix}-{sex}-{age}", share * sex_share * age_share)
            name = f"mac/universal-{sex}-{age}-averagemuscle-{heavy}"
            morph(vertices, name, abs(identity.weight) * sex_share * age_share * 0.6)
    for name, weight in identity.targets:
        morph(vertices, f"id/{name}", weight * (0.95 if comic else 0.75))
    if comic:
        for side in "lr":
            morph(vertices, f"id/eyes/{side}-eye-scale-incr", 1.1)
        morph(vertices, "id/nose/nose-scale-horiz-decr", 0.4)
        morph(vertices, "id/chin/chin-width-decr", 0.3)
    return vertices


def _beard_shift(look: Look, vertices: Floats, mask: Floats) -> Floats:
    """[n, 3]: a beard stands off the skin in clumps; a long one hangs."""
    shift = np.zeros_like(vertices)
    length = {"none": 0.0, "stubble": 0.0, "moustache": 0.07, "goatee": 0.09, "full": 0.08}[look.beard]
    long = look.beard == "full" and look.long_beard
    grown = mask > 0
    if length == 0 or not grown.any():
        return shift
    clumps = 0.75 + 0.5 * noise_of(VERTICES[grown] * 9)
    outwards = normals(vertices.copy(), np.ascontiguousarray(TRIANGLES))[grown]
    shift[grown] = outwards * ((0.17 if long else length) * mask[grown] * clumps)[:, None]
    if long:
        y, z = VERTICES[grown, 1], VERTICES[grown, 2]
        shift[grown, 1] -= 0.38 * mask[grown] * smoothstep(6.6, 6.25, y) * smoothstep(0.4, 0.9, z)
    return shift

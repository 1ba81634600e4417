"""A person in a state as geometry, before expression and pose: built once, drawn in many views."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from harald.proving_ground.persons import worn
from harald.proving_ground.persons.hair import hair
from harald.proving_ground.persons.head import (
    BODY,
    EYES,
    INSIDE_MOUTH,
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
from harald.proving_ground.persons.solids import surface


@dataclass(frozen=True)
class Figure:
    """vertices: [n, 3] of the bare head. Worn and grown things: [m, 3], [k, 3], [k], and their canonical places."""

    vertices: Floats
    beard_shift: Floats  # [n, 3] added after the expression
    beard: Floats  # [n]
    scalp: Floats  # [n]
    cloth: Floats  # [n] thickness
    eyes: Floats  # [2, 3]
    things: Floats
    things_canonical: Floats
    triangles: Ints
    parts: np.ndarray

    @property
    def rise(self) -> Floats:
        """[3]: how far this head's eyes lie from the canonical ones."""
        shift = self.eyes.mean(0) - EYES.mean(0)
        return np.array([0, shift[1], shift[2]], np.float32)


_EYEBALLS = [(VERTEX_PARTS == Part.EYE) & side for side in (VERTICES[:, 0] > 0, VERTICES[:, 0] < 0)]
_SKIN = BODY & (INSIDE_MOUTH < 0.2)
_SKIN_TREE = KDTree(VERTICES[_SKIN])


def build_figure(identity: Identity, look: Look, comic: bool) -> Figure:
    vertices = _face(identity, comic)
    moved = (vertices - VERTICES)[_SKIN]

    def follow(points: Floats) -> Floats:
        distance, near = _SKIN_TREE.query(points, k=6)
        weight = 1 / (distance + 0.05) ** 2
        weight /= weight.sum(1, keepdims=True)
        return (points + (moved[near] * weight[..., None]).sum(1)).astype(np.float32)

    eyes = np.stack(
        [vertices[(VERTEX_PARTS == Part.EYE) & s].mean(0) for s in (VERTICES[:, 0] > 0, VERTICES[:, 0] < 0)]
    )
    cloth = worn.cloth_thickness(look.clothes)
    rise = np.array([0, *(eyes.mean(0) - EYES.mean(0))[1:]])
    temples = follow(np.array([[0.80, 7.33, 0.52], [-0.80, 7.33, 0.52]], np.float32))
    pieces = worn.glasses(look, eyes, temples, comic) + worn.earrings(look, vertices)
    pieces += worn.necklace(look, vertices, cloth)
    meshes = [(mesh[0], mesh[0] - rise, mesh[1], part) for mesh, part in pieces]
    body, shape = (under_headwear(look.headwear, solid) for solid in hair(look))
    solids = ((body, Part.HAIR), (shape, Part.HAIR_SHAPE), (headwear(look.headwear, body), Part.HEADWEAR))
    for solid, part in solids:
        if solid is not None:
            points, faces = surface(solid)
            if len(points):
                meshes.append((follow(points), points, faces, part))
    mask = beard_mask(look.beard)
    return Figure(
        vertices=vertices,
        beard_shift=_beard_shift(look, vertices, mask),
        beard=mask,
        scalp=scalp_mask(look.receding),
        cloth=cloth,
        eyes=eyes,
        **_joined(meshes),
    )


def _joined(meshes: list[tuple[Floats, Floats, Ints, Part]]) -> dict:
    """One mesh of all."""
    nothing = np.zeros((0, 3), np.float32)
    meshes = [*meshes, (nothing, nothing, np.zeros((0, 3), np.int32), Part.BACKGROUND)]
    starts = np.cumsum([0, *(len(points) for points, *_ in meshes)])
    return {
        "things": np.concatenate([points for points, *_ in meshes]).astype(np.float32),
        "things_canonical": np.concatenate([place for _, place, *_ in meshes]).astype(np.float32),
        "triangles": np.concatenate([f + s for (_, _, f, _), s in zip(meshes, starts, strict=False)]).astype(np.int32),
        "parts": np.concatenate([np.full(len(f), part, np.int8) for *_, f, part in meshes]),
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

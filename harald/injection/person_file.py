"""The person file: safetensors with metadata. Nothing is ever unpickled."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from harald.base import BaseModel
from harald.errors import PersonFileError
from harald.records import PersonTokens
from harald.runs import write_bytes

FORMAT = "harald-person-1"
KEY = "harald"


def save_person(path: Path, person: PersonTokens) -> None:
    """The same person gives the same bytes."""
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
    write_bytes(path, save({"tokens": person.tokens.detach().float().cpu().contiguous()}, metadata))


def load_person(path: Path) -> PersonTokens:
    """Raises PersonFileError with the reason."""
    if not path.is_file():
        raise PersonFileError(f"there is no person file {path}", "make one with predict_tokens")
    try:
        with safe_open(path, "pt") as file:
            metadata, names = json.loads((file.metadata() or {}).get(KEY, "{}")), list(file.keys())
            if metadata.get("format") != FORMAT or names != ["tokens"]:
                raise PersonFileError(
                    f"{path} is not a person file (format {metadata.get('format')!r}, tensors {names[:3]})",
                    f"this version reads {FORMAT!r}; make one with predict_tokens",
                )
            tokens = file.get_tensor("tokens").float()
    except (SafetensorError, OSError, ValueError) as error:
        raise PersonFileError(
            f"{path} cannot be read: {error}", "the file is damaged or no safetensors; make it again"
        ) from error
    groups = tuple((str(name), int(size)) for name, size in metadata["groups"])
    if tokens.ndim != 2 or len(tokens) != sum(size for _, size in groups) or not tokens.isfinite().all():
        raise PersonFileError(
            f"{path} holds tokens of shape {tuple(tokens.shape)} for groups {groups}, or numbers that are not finite",
            "the file is damaged; make it again",
        )
    return PersonTokens(
        tokens=tokens,
        groups=groups,
        point=metadata["point"],
        base=metadata["base"],
        references=metadata["references"],
        encoder=metadata["encoder"],
        notes=metadata["notes"],
    )


def check_fits(person: PersonTokens, base: BaseModel, path: Path) -> None:
    """Raises PersonFileError if the file was made for another base model or width."""
    if person.base != base.repo or person.tokens.shape[1] != base.width:
        raise PersonFileError(
            f"{path} was made for {person.base} (width {person.tokens.shape[1]}), "
            f"not for {base.repo} (width {base.width})",
            f"use a preset with {person.base}, or predict the tokens again",
        )

"""A cached configuration against the recorded one, field by field."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from harald.published.facts import Part, Published

# Who wrote a file, and how, says nothing about the model. pooled_projection_dim: in Qwen-Image's file and not in that
# of its Edit sibling; diffusers ignores it with a warning.
IGNORED = {
    "_name_or_path", "transformers_version", "_diffusers_version", "torch_dtype", "dtype", "architectures",
    "pooled_projection_dim",
}  # fmt: skip


def differences(published: Published, part: Part, folder: Path) -> list[str]:
    """Recorded fields that the repository's copy in `folder` has otherwise; a missing file is one difference."""
    file = folder / part.folder / part.config
    if not file.exists():
        return [f"{part.config} is missing"]
    cached = dict(_flat(normalised(part.kind, json.loads(file.read_text()))))
    return [
        f"{name} is {cached.get(name)!r}, published is {value!r}"
        for name, value in _flat(normalised(part.kind, published.config(part)))
        if cached.get(name) != value
    ]


def normalised(kind: str, raw: dict[str, Any]) -> dict[str, Any]:
    """What the class reads from a file. The text models' files come in an old form (rope_scaling, everything twice) and
    a new one (rope_parameters)."""
    architecture = getattr(transformers, kind, None)
    if architecture is None or not hasattr(architecture, "config_class"):
        return raw
    return architecture.config_class.from_dict(raw).to_dict()


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in sorted(value.items()):
        if name in IGNORED:
            continue
        if isinstance(field, dict):
            yield from _flat(field, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(field) if isinstance(field, tuple) else field

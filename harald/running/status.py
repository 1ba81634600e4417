"""status.json: what a run is doing, for those who watch it from outside."""

import json
import os
import re
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from harald.runs import STATUS, write_json

State = Literal["running", "done", "stopped", "failed"]

_PICTURE = r"\.(?:png|jpe?g|webp)\b"
_SECRET_NAME = re.compile("TOKEN|SECRET|PASSWORD|API_KEY")
_HIDDEN = (
    (re.compile(rf"[~.\w]*/.*?{_PICTURE}", re.IGNORECASE), "<picture>"),
    (re.compile(rf"[^\s'\"]+{_PICTURE}", re.IGNORECASE), "<picture>"),
    (re.compile(r"(['\"])[^'\"]*/[^'\"]*\1"), "<path>"),
    (re.compile(r"(?<!\w)[~.]*/[^\s,;:)]+"), "<path>"),
    (re.compile(r"\bhf_\w+"), "<secret>"),
)


@dataclass
class Status:
    """Of a run. seconds and cost (USD at list price, None where no price is known) sum up over all its starts; so do
    units, the steps or pictures that were worked on in that time, lost ones included, and completed, how often it was
    done. updated: seconds since 1970. error: first line of the last one.
    """

    job: str
    run: str
    preset: str
    gpu: str
    state: State = "running"
    done: int = 0
    total: int = 0
    unit: str = ""
    score_name: str = ""
    score: float | None = None
    seconds: float = 0.0
    cost: float | None = 0.0
    units: int = 0
    completed: int = 0
    starts: int = 0
    updated: float = 0.0
    error: str = ""

    def write(self, folder: Path) -> None:
        self.updated = time.time()
        write_json(folder / STATUS, asdict(self))


def read(folder: Path) -> Status | None:
    """None where a run has no status, or one that this version does not know."""
    try:
        content: dict[str, Any] = json.loads((folder / STATUS).read_text())
        return Status(**{field.name: content[field.name] for field in fields(Status)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, without paths, names of pictures and secrets."""
    text = (str(error).splitlines() or [""])[0]
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, "<secret>")
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

"""Synthetic persons as a data set on disk: the user's folders, and the truth in a table beside them."""

import hashlib
import io
import json
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from harald import runs
from harald.data.images import png
from harald.data.parts import ENDING
from harald.errors import ConfigError
from harald.proving_ground.persons import ATTRIBUTES, HIDDEN, Person, Picture, person, pictures, state_id
from harald.proving_ground.persons.head import Part
from harald.proving_ground.persons.truth import classes, labels
from harald.proving_ground.persons.view import View

BASES = (1, 2)
BLOCK = 64  # states of one file of the truth table
DIGESTS = {".png": "sha256_png", ".txt": "sha256_txt", ENDING: "sha256_parts"}  # ending of a view's file -> column


@dataclass(frozen=True)
class Plan:
    """All that the bytes of the data set depend on, but for the number of states."""

    seed: int
    views: int  # of a state, half of them photos, half comics
    side: int  # pixels
    state_free: bool  # prompts are silent about the person
    look_alikes: bool  # states 2k and 2k + 1 are one look on two persons, instead of one person in two looks
    held_out: bool  # persons that no shipped model was trained on
    parts: bool = False  # a mask of the small worn things beside each picture


@dataclass(frozen=True)
class Place:
    """Where a state goes."""

    base: int
    state_id: str
    index: int

    def below(self, root: Path) -> Path:
        return root / str(self.base) / self.state_id


def places(plan: Plan, states: int) -> list[Place]:
    """Twins go to different base folders."""
    return [Place(BASES[i % len(BASES)], state_id(plan.seed, i), i) for i in range(states)]


@dataclass(frozen=True)
class Written:
    """A state as files (name -> content, pictures before their prompts) and as rows of the truth table."""

    files: dict[str, bytes]
    rows: list[dict[str, Any]]


def make(plan: Plan, place: Place) -> Written:
    """A pure function."""
    someone = person(plan.seed, place.index, held_out=plan.held_out, views=plan.views, look_alikes=plan.look_alikes)
    files, rows = {}, []
    for view, picture in zip(someone.views, pictures(someone, plan.side), strict=True):
        name = f"{view.domain}_view_{view.number:02d}"
        prompt = someone.state_free_prompt(view) if plan.state_free else someone.prompt(view)
        content = {".png": png(Image.fromarray(picture.image)), ".txt": f"{prompt}\n".encode()}
        if plan.parts:
            content[ENDING] = png(Image.fromarray(picture.worn))
        files |= {f"{name}{ending}": data for ending, data in content.items()}
        rows.append(_row(place, someone, view, picture) | {DIGESTS[end]: digest(data) for end, data in content.items()})
    return Written(files, rows)


def _row(place: Place, someone: Person, view: View, picture: Picture) -> dict[str, Any]:
    """One view: who, how, what can be seen of it (attribute_seen), and the pixels of each part (at 128 x 128)."""
    seen = labels(someone.look, view, picture.pixels) != HIDDEN
    return {
        **asdict(place),
        "view": view.number,
        "identity": someone.identity_number,
        "look": someone.look_number,
        **classes(someone.look, view),
        **{f"{name}_seen": bool(flag) for name, flag in zip(ATTRIBUTES, seen, strict=True)},
        **{f"pixels_{part.name.lower()}": round(picture.pixels[part], 2) for part in Part},
    }


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Truth:
    """The truth table of a data set: parquet files of BLOCK states under <root>/truth, one row for each view."""

    def __init__(self, root: Path, plan: Plan):
        self.root, self.folder, self.plan = root, root / "truth", plan

    def check_plan(self) -> None:
        """Raises ConfigError for a data set that was written with other flags."""
        record = self.folder / "plan.json"
        if record.exists() and {"parts": False, **json.loads(record.read_text())} != asdict(self.plan):
            raise ConfigError(
                f"the data set in {self.root} was written with other flags: {record.read_text().strip()}",
                "nothing was changed; use the same flags, or set HARALD_ROOT to an empty folder",
            )

    def read(self, block: int) -> list[dict[str, Any]]:
        path = self._path(block)
        return pq.read_table(path).to_pylist() if path.exists() else []

    def write(self, block: int, rows: list[dict[str, Any]]) -> None:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        runs.write_bytes(self._path(block), buffer.getvalue())
        runs.write_json(self.folder / "plan.json", asdict(self.plan))

    def _path(self, block: int) -> Path:
        return self.folder / f"views_{block:05d}.parquet"


def renderers(workers: int) -> AbstractContextManager[ProcessPoolExecutor | None]:
    """Processes that make states; None for one worker, which is this process."""
    if workers == 1:
        return nullcontext(None)
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )

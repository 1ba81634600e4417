"""The index of the data set as one parquet file: a row for each view, written as a stream.

Pictures are stored relative to their base folder, so that a manifest made in one place is read in another.
"""

import hashlib
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from harald.config import Data
from harald.data.scan import number_of
from harald.errors import DatasetError
from harald.records import State, View

FORMAT, VERSION = b"harald.manifest", b"1"
STATES_PER_ROW_GROUP = 256
Split = Literal["train", "validation", "held_out"]

_TEXT = pa.string()
SCHEMA = pa.schema(
    [
        ("base", pa.int32()),
        ("state_id", _TEXT),
        ("person", _TEXT),
        ("separation", _TEXT),
        ("domain", _TEXT),
        ("number", pa.int32()),
        ("image", _TEXT),  # relative to the base folder
        ("prompt", _TEXT),
        ("person_prompt", _TEXT),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ],
    metadata={FORMAT: VERSION},
)


def write_manifest(path: Path, states: Iterable[State]) -> tuple[int, int]:
    """(states, views) written. The file appears when it is complete; memory holds one row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    state_count = view_count = 0
    states = iter(states)
    try:
        with pq.ParquetWriter(temporary, SCHEMA) as writer:
            while group := list(itertools.islice(states, STATES_PER_ROW_GROUP)):
                rows = [_row(state, view) for state in group for view in state.views]
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                state_count += len(group)
                view_count += len(rows)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return state_count, view_count


def _row(state: State, view: View) -> dict[str, str | int]:
    return {
        "base": state.base,
        "state_id": state.state_id,
        "person": state.person,
        "separation": state.separation,
        "domain": view.domain,
        "number": view.number,
        "image": f"{state.state_id}/{view.image.name}",
        "prompt": view.prompt,
        "person_prompt": view.person_prompt,
        "width": view.width,
        "height": view.height,
    }


def rows(path: Path, columns: list[str] | None = None) -> Iterator[dict]:
    """Row by row, one row group in memory. Raises DatasetError if the file is missing, damaged or not ours."""
    try:
        with pq.ParquetFile(path) as file:
            version = (file.schema_arrow.metadata or {}).get(FORMAT)
            if version != VERSION:
                raise DatasetError(
                    f"{path} is a parquet file, but no manifest of version {VERSION.decode()} (it says {version!r})",
                    "run check_dataset again",
                )
            for batch in file.iter_batches(batch_size=4096, columns=columns):
                yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise DatasetError(f"there is no manifest {path}", "run check_dataset") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not a manifest: {error}", "run check_dataset again") from error


def load_states(path: Path, datasets: dict[int, Path]) -> list[State]:
    """Sorted by base folder and number, views by domain and number.

    Raises DatasetError if the file is not a manifest, or names a base folder or a place that is not in `datasets`.
    """
    states = [
        _state(list(group), datasets, path)
        for _, group in itertools.groupby(rows(path), key=lambda row: (row["base"], row["state_id"]))
    ]
    return sorted(states, key=lambda state: (state.base, number_of(state.state_id), state.state_id))


def _state(group: list[dict], datasets: dict[int, Path], path: Path) -> State:
    first = group[0]
    if first["base"] not in datasets:
        raise DatasetError(
            f"{path} names the base folder {first['base']}, here are {sorted(datasets) or 'none'}",
            "mount that base folder, or run check_dataset here",
        )
    views = [
        View(row["domain"], row["number"], _inside(datasets[row["base"]], row["image"], path), row["prompt"],
             row["person_prompt"], row["width"], row["height"])
        for row in group
    ]  # fmt: skip
    views.sort(key=lambda view: (view.domain, view.number))
    return State(first["state_id"], first["base"], tuple(views), first["person"], first["separation"])


def _inside(base: Path, relative: str, path: Path) -> Path:
    parts = PurePosixPath(relative)
    if parts.is_absolute() or ".." in parts.parts:
        raise DatasetError(f"{path} names a picture outside its base folder: {relative!r}", "run check_dataset again")
    return base / parts


def split_of(key: str, data: Data) -> Split:
    """By a hash of people.split_key(state): adding states, or a larger share, never moves one between the two that are
    set aside.

    >>> [split_of("seed_1", Data(validation_share=v, held_out_share=h)) for v, h in ((0, 0), (1, 0), (0, 1))]
    ['train', 'validation', 'held_out']
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < data.validation_share:
        return "validation"
    return "held_out" if place >= 1 - data.held_out_share else "train"

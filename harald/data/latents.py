"""The latent cache: what the VAE makes of every picture, computed once and found by the picture's content.

    output/latents/<hash of the key>/key.json              what the latents depend on besides the pictures
    output/latents/<hash of the key>/<hash>.safetensors    some hundred latents each (see shards.py)
    output/prepare/<run>/pictures.parquet                  the index of a run: picture -> its SHA-256 and its shard

Shards belong to no run: runs with the same key share them, and runs with different keys never meet. They are only ever
added or replaced by whole ones, so several jobs may write at the same time. A picture's SHA-256 is taken from the index
as long as its file looks unchanged (see seen.py), so training reads no picture that it has the latents of.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from harald.data.seen import Seen, look, picture_name
from harald.data.shards import FORMAT, Shard
from harald.errors import DatasetError
from harald.runs import write_bytes

INDEX = "pictures.parquet"
_COLUMNS = {
    "picture": pa.string(),  # <state_id>/<file>
    "size": pa.int64(),
    "mtime_ns": pa.int64(),
    "sha256": pa.binary(32),
    "shard": pa.dictionary(pa.int32(), pa.string()),  # file name
}


class Entry(NamedTuple):
    """Where the latents of a picture are, and what its file was like."""

    seen: Seen
    shard: str


def picture_hash(image: Path) -> str:
    """SHA-256 of the file's bytes."""
    return look(image)[0].sha256.hex()


def store_folder(output: Path, key: dict[str, Any]) -> Path:
    """Where the shards of a key lie."""
    return output / "latents" / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def write_index(run: Path, key: dict[str, Any], entries: dict[str, Entry]) -> None:
    """The index of a run, by the pictures' names. It appears complete."""
    columns = [
        list(entries),
        *([getattr(entry.seen, field) for entry in entries.values()] for field in Seen._fields),
        [entry.shard for entry in entries.values()],
    ]
    schema = pa.schema(_COLUMNS.items(), {"format": FORMAT, "key": json.dumps(key, sort_keys=True)})
    table = pa.table([pa.array(values, kind) for values, kind in zip(columns, _COLUMNS.values(), strict=True)], schema)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_bytes(run / INDEX, buffer.getvalue().to_pybytes())


def read_index(run: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """(key, entries). Raises DatasetError if the run has no index, or one that is damaged or of another format."""
    path, entries = run / INDEX, {}
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if metadata.get(b"format") != FORMAT.encode():
                raise DatasetError(
                    f"{path} has the format {metadata.get(b'format')!r}, not {FORMAT}", "run prepare again"
                )
            for batch in file.iter_batches(4096):
                for row in batch.to_pylist():
                    seen = Seen(row["size"], row["mtime_ns"], row["sha256"])
                    entries[row["picture"]] = Entry(seen, row["shard"])
    except FileNotFoundError as error:
        raise DatasetError(
            f"there is no latent cache in {run}", "let prepare end, or leave train.latents empty"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not an index of latents: {error}", "run prepare again") from error
    return json.loads(metadata[b"key"]), entries


class LatentCache:
    """The latents of one run of prepare. Open shards stay open; each worker process opens its own."""

    def __init__(self, run: Path, output: Path, key: dict[str, Any]):
        """key: what is needed now. Raises DatasetError if the run has no index, or was made for another key."""
        made_for, self._entries = read_index(run)
        if made_for != key:
            fields = sorted(name for name in made_for.keys() | key.keys() if made_for.get(name) != key.get(name))
            raise DatasetError(
                f"the latent cache {run.name} does not match: "
                + ", ".join(f"{name} is {made_for.get(name)!r}, needed is {key.get(name)!r}" for name in fields),
                "run prepare with the preset and overrides of train, and name that run in train.latents",
            )
        self.run, self.key, self.store = run, key, store_folder(output, key)
        self._shards: dict[str, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_shards": {}}

    def require(self, images: Iterable[Path]) -> None:
        """Raises DatasetError if a picture was not there when prepare ran. Reads no file."""
        needed = list(images)
        if missing := [image for image in needed if picture_name(image) not in self._entries]:
            raise DatasetError(
                f"the latent cache {self.run.name} lacks {len(missing)} of {len(needed)} pictures, the first is "
                f"{missing[0]}",
                f"run prepare --run-name {self.run.name} again: it encodes what is new",
            )

    def get(self, image: Path) -> Tensor:
        """Packed latents [s, c]. Raises DatasetError for a picture that is not in the cache, or a damaged shard."""
        entry = self._entry(image)
        if entry.shard not in self._shards:
            self._shards[entry.shard] = Shard(self.store / entry.shard, self.key)
        return self._shards[entry.shard].get(entry.seen.sha256.hex())

    def _entry(self, image: Path) -> Entry:
        name = picture_name(image)
        entry = self._entries.get(name)
        try:
            if entry and entry.seen.fits(image.stat()):
                return entry
            seen, _ = look(image)
        except OSError as error:
            raise DatasetError(f"{image} cannot be read: {error.strerror}", "run check_dataset") from error
        if seen.sha256 not in self._shard_of:
            raise DatasetError(
                f"{image} is not in the latent cache {self.run.name} (new or changed)",
                f"run prepare --run-name {self.run.name} again: it encodes what is new",
            )
        self._entries[name] = Entry(seen, self._shard_of[seen.sha256])
        return self._entries[name]

    @functools.cached_property
    def _shard_of(self) -> dict[bytes, str]:
        return {entry.seen.sha256: entry.shard for entry in self._entries.values()}

"""Files of latents that tell by themselves whether they are whole.

A shard's name is the SHA-256 of the hashes of its pictures, so a file under another's name is noticed from its header,
as is one that is cut. Its header also holds the SHA-256 of each latent, which is compared at every read: a read
then costs one latent (256 KiB or less at 512 pixels), not a pass over the file.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from harald.errors import DatasetError
from harald.runs import write_bytes

FORMAT = "harald-latents-2"
HEADER = "harald"  # one metadata key with sorted JSON: safetensors writes several keys in random order
SUFFIX = ".safetensors"


def shard_name(pictures: Iterable[str]) -> str:
    """File name of the shard that holds just these pictures (their SHA-256 in hex)."""
    return hashlib.sha256("\n".join(sorted(pictures)).encode()).hexdigest() + SUFFIX


def write_shard(folder: Path, key: dict[str, Any], latents: dict[str, Tensor]) -> Path:
    """SHA-256 of a picture -> its latents [s, c], in the type they were computed in. The file appears complete."""
    hashes = {picture: content_hash(tensor) for picture, tensor in latents.items()}
    header = json.dumps({"format": FORMAT, "key": key, "sha256": hashes}, sort_keys=True)
    path = folder / shard_name(latents)
    write_bytes(path, save(latents, {HEADER: header}))
    return path


def content_hash(tensor: Tensor) -> str:
    """SHA-256 of number type, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Shard:
    """An open shard. Raises DatasetError if the file is missing, cut, swapped or made for another key."""

    def __init__(self, path: Path, key: dict[str, Any]):
        self.path = path
        try:
            self._file = safe_open(path, "pt")
            header = json.loads(self._file.metadata()[HEADER])
            made_for, self._sha256 = (header["format"], header["key"]), header["sha256"]
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from error
        if made_for != (FORMAT, key):
            raise self._damaged(f"it was made for {made_for}, not for {(FORMAT, key)}")
        if set(self._file.keys()) != set(self._sha256):
            raise self._damaged(f"it holds {len(self._file.keys())} latents and {len(self._sha256)} hashes")
        if shard_name(self._sha256) != path.name:
            raise self._damaged("its name is not the hash of its pictures: it belongs under another name")

    @property
    def pictures(self) -> list[str]:
        return sorted(self._sha256)

    def get(self, picture: str) -> Tensor:
        """Latents [s, c]. Raises DatasetError if they are not the ones that were written."""
        tensor = self._file.get_tensor(picture)
        if content_hash(tensor) != self._sha256[picture]:
            raise self._damaged(f"the latents of picture {picture[:12]} are not the ones that were written")
        return tensor

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(
            f"the latent shard {self.path} cannot be used: {why}",
            "run prepare again with the same --run-name: it encodes the pictures of damaged shards anew",
        )


def verified(path: Path, key: dict[str, Any]) -> list[str]:
    """The pictures of a shard, after every byte of it was compared. Raises DatasetError."""
    shard = Shard(path, key)
    for picture in shard.pictures:
        shard.get(picture)
    return shard.pictures

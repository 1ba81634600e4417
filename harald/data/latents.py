"""The latent cache: what the VAE makes of every picture, computed once. A cache that does not match is not used."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from harald.errors import DatasetError
from harald.runs import write_bytes, write_json

FORMAT = "harald-latents-1"
INDEX = "index.json"


def picture_hash(image: Path) -> str:
    """SHA-256 of the file's bytes: the cache's address of a picture."""
    return hashlib.sha256(image.read_bytes()).hexdigest()


def write_shard(path: Path, latents: dict[str, Tensor]) -> None:
    """picture hash -> packed latents [s, c]."""
    write_bytes(path, save({name: tensor.contiguous() for name, tensor in sorted(latents.items())}, {"format": FORMAT}))


def write_index(folder: Path, key: dict, shards: dict[str, list[str]]) -> None:
    """key: what the latents depend on besides the pictures; shards: file name -> its picture hashes."""
    write_json(folder / INDEX, {"format": FORMAT, "key": key, "shards": shards})


@dataclass(frozen=True)
class LatentCache:
    """Latents by the hash of the picture's bytes, so that a changed picture is never served an old latent."""

    folder: Path
    shard_of: dict[str, str]

    @classmethod
    def open(cls, folder: Path, key: dict) -> "LatentCache":
        """Raises DatasetError if there is no cache, or one made with another base model, size or number type."""
        file = folder / INDEX
        if not file.exists():
            raise DatasetError(f"there is no latent cache in {folder}", "run prepare, or leave train.latents empty")
        index = json.loads(file.read_text())
        if index.get("format") != FORMAT or index["key"] != key:
            raise DatasetError(
                f"the latent cache in {folder} was made for {index.get('key')}, not for {key}",
                "run prepare with the same preset and overrides as train",
            )
        return cls(folder, {name: shard for shard, names in index["shards"].items() for name in names})

    def get(self, image: Path) -> Tensor:
        """Packed latents [s, c]. Raises DatasetError for a picture that is not in the cache."""
        name = picture_hash(image)
        if name not in self.shard_of:
            raise DatasetError(
                f"{image} is not in the latent cache {self.folder} (new or changed)", "run prepare again"
            )
        with safe_open(self.folder / self.shard_of[name], "pt") as shard:
            return shard.get_tensor(name)

"""Pictures -> shards of latents, with the VAE alone: the parts of prepare. And the key that tells caches apart."""

import functools
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harald import determinism, hub, runs
from harald.base.vae import GROUP, encode_images, load_vae
from harald.config import Config
from harald.data.ahead import ahead
from harald.data.images import load_picture, target_tensor
from harald.data.latents import LatentCache, store_folder
from harald.data.seen import look
from harald.data.shards import shard_name, verified, write_shard
from harald.errors import DatasetError
from harald.runtime import Runtime

log = logging.getLogger(__name__)


class Task(NamedTuple):
    """A picture to encode: the file datasets[base] / name, which holds this content (SHA-256 in hex)."""

    base: int
    name: str
    sha256: str


def cache_key(runtime: Runtime, config: Config) -> dict[str, Any]:
    """What latents depend on besides the pictures, on the machine that asks. Raises ModelError."""
    ref = config.models.base
    return {
        "base": ref.repo,
        "revision": hub.snapshot(runtime.hf_cache, ref).name,  # the commit, whatever name it was asked for by
        "size": config.data.image_size,
        "dtype": str(determinism.dtype(config.dtype)),
        "device": determinism.device().type,
    }


def open_cache(runtime: Runtime, config: Config, images: Iterable[Path]) -> LatentCache | None:
    """The cache that train.latents names, if any. Raises DatasetError if it does not match, or lacks an image."""
    if not config.train.latents:
        return None
    run = runs.find_run(runtime, "prepare", config.train.latents)
    cache = LatentCache(run, runtime.output, cache_key(runtime, config))
    cache.require(images)
    return cache


def encode_shards(runtime: Runtime, config: Config, shards: list[list[Task]]) -> dict[str, str]:
    """Write each shard that is not there yet. Returns name of a picture -> why it has no latents."""
    key, failed = cache_key(runtime, config), {}
    store, total = store_folder(runtime.output, key), sum(map(len, shards))
    done, start = 0, time.monotonic()
    for shard in shards:
        if not is_whole(store / shard_name(task.sha256 for task in shard), key):
            latents, problems = encode_shard(runtime, config, shard)
            failed |= problems
            if latents:
                path = write_shard(store, key, latents)
                runtime.commit()
                log.info("shard %s written", path.name[:16])
        done += len(shard)
        log.info("this part: %d of %d pictures, %.1f pictures/s", done, total, done / (time.monotonic() - start))
    return failed


def encode_shard(runtime: Runtime, config: Config, shard: list[Task]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(SHA-256 of a picture -> [s, c], name of a picture -> why it has none)."""
    vae, pixels, failed = _vae(runtime.hf_cache, config), {}, {}
    latents: dict[str, Tensor] = {}
    for task, picture in zip(
        shard, ahead(functools.partial(read, runtime, config.data.image_size), shard), strict=True
    ):
        if isinstance(picture, str):
            failed[task.name] = picture
        else:
            pixels[task.sha256] = picture
        if pixels and (len(pixels) == GROUP or task is shard[-1]):
            with torch.no_grad():
                latents |= zip(pixels, encode_images(vae, torch.stack(list(pixels.values()))).cpu(), strict=True)
            pixels.clear()
    return latents, failed


def read(runtime: Runtime, size: int, task: Task) -> Tensor | str:
    """[3, size, size] in -1..1, or why there is none. What is encoded are the very bytes that were hashed."""
    image = runtime.datasets[task.base] / task.name
    try:
        seen, content = look(image)
        if seen.sha256.hex() != task.sha256:
            return "it changed while prepare ran"
        return target_tensor(load_picture(image, content), size)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except DatasetError as error:
        return str(error).splitlines()[0]


def is_whole(path: Path, key: dict[str, Any]) -> bool:
    try:
        return path.exists() and bool(verified(path, key))
    except DatasetError:
        return False


@functools.lru_cache(maxsize=1)
def _vae(hf_cache: Path, config: Config) -> Any:
    """One load for all shards of a machine."""
    device, dtype = determinism.device(), determinism.dtype(config.dtype)
    log.info("load the VAE of %s on %s in %s", config.models.base.repo, device, dtype)
    return load_vae(hf_cache, config.models.base, device, dtype)

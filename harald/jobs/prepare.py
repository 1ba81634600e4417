"""Encode every picture once: the latent cache that train reads (train.latents)."""

import functools
import logging
from pathlib import Path

import torch

from harald import determinism, hub, runs, settings
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.data.images import load_picture, target_tensor
from harald.data.index import states_for
from harald.data.latents import LatentCache, picture_hash, write_index, write_shard
from harald.jobs.loading import base_model
from harald.runtime import Runtime

log = logging.getLogger(__name__)

STATES_PER_SHARD = 64


def run(runtime: Runtime, config: Config, run_name: str) -> dict:
    """Shards are independent and are skipped when they are already there, so a stopped run goes on where it was."""
    folder = runs.open_run(runtime, "prepare", run_name, config)
    states = states_for(runtime, config)
    shards = [states[i : i + STATES_PER_SHARD] for i in range(0, len(states), STATES_PER_SHARD)]
    text = settings.to_json(config)
    items = [
        (text, folder.name, number, [[s.base, f"{s.state_id}/{v.image.name}"] for s in shard for v in s.views])
        for number, shard in enumerate(shards)
    ]
    index: dict[str, list[str]] = {}
    for done, (name, hashes) in enumerate(runtime.map(encode_shard, items), 1):
        index[name] = hashes
        log.info("shard %d/%d: %d pictures", done, len(items), len(hashes))
    write_index(folder, cache_key(runtime, config), index)
    return {"pictures": sum(map(len, index.values())), "shards": len(index), "cache": str(folder)}


def encode_shard(
    runtime: Runtime, config_json: str, run_name: str, number: int, pictures: list[list]
) -> tuple[str, list[str]]:
    """One shard: pictures as [base, path below it]. Returns its file name and the hashes of its pictures."""
    config = settings.from_json(config_json)
    name = f"shard_{number:05d}.safetensors"
    path = runtime.output / "prepare" / run_name / name
    images = [runtime.datasets[base] / relative for base, relative in pictures]
    hashes = {picture_hash(image): image for image in images}
    if not path.exists() or set(_names(path)) != set(hashes):
        base = _base(runtime.hf_cache, config_json)
        with torch.no_grad():
            write_shard(path, {h: encode(base, image, config.data.image_size) for h, image in hashes.items()})
        runtime.commit()
    return name, sorted(hashes)


def encode(base: QwenImage, image: Path, size: int) -> torch.Tensor:
    """[s, c] float32, one picture at a time, as training does without a cache: the same bits."""
    return base.encode_images(target_tensor(load_picture(image), size)[None])[0].float().cpu()


def cache_key(runtime: Runtime, config: Config) -> dict:
    """What latents depend on besides the pictures."""
    ref = config.models.base
    return {
        "base": ref.repo,
        "revision": hub.revision(runtime.hf_cache, ref.repo, ref.revision),
        "size": config.data.image_size,
        "dtype": str(determinism.dtype(config.dtype)),
        "device": determinism.device().type,
    }


def open_cache(runtime: Runtime, config: Config) -> LatentCache | None:
    """The cache that train.latents names, if any. Raises DatasetError if it does not match."""
    if not config.train.latents:
        return None
    return LatentCache.open(runs.find_run(runtime, "prepare", config.train.latents), cache_key(runtime, config))


def _names(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as shard:
        return list(shard.keys())


@functools.cache
def _base(hf_cache: Path, config_json: str) -> QwenImage:
    """One load for all shards of a container."""
    return base_model(hf_cache, settings.from_json(config_json))

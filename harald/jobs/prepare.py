"""Encode every picture once: the latent cache that train reads (train.latents). Its layout stands in data/latents.py.

A planner hashes the pictures, looks which latents are there, and deals the rest out to parts that encode them. What a
part says is only shown: the index is written from shards that the planner has read back. So a job that was stopped, or
a part that was killed, costs the shards it was at; a second run encodes what is new, missing or damaged, nothing else.
"""

import contextlib
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from harald import hub, runs
from harald.config import Config
from harald.data.ahead import ahead
from harald.data.index import states_for
from harald.data.latents import Entry, read_index, store_folder, write_index
from harald.data.seen import Seen, look, picture_name
from harald.data.shards import SUFFIX, verified
from harald.errors import DatasetError
from harald.jobs.encoding import Task, cache_key, encode_shards
from harald.jobs.loading import ensure
from harald.progress import Progress
from harald.runtime import Runtime

log = logging.getLogger(__name__)

LOG_EVERY = 5000  # pictures
LEFTOVER = 24 * 3600  # seconds; no part runs that long


def run(runtime: Runtime, config: Config, run_name: str) -> dict:
    """Raises DatasetError that names the pictures that could not be encoded, after all others are in the cache."""
    folder = runs.open_run(runtime, "prepare", run_name, config)
    pictures = [(state.base, view.image) for state in states_for(runtime, config) for view in state.views]
    ensure(runtime.hf_cache, config.models.base)
    hub.snapshot(runtime.hf_cache, config.models.base)
    runtime.commit()
    seen, failed = look_at([image for _, image in pictures], earlier(folder))
    (key,) = runtime.map(cache_key, [(config,)])  # of a part, which may have a GPU where this machine has none
    store = store_folder(runtime.output, key)
    runs.write_json(store / "key.json", key)
    shard_of = whole_shards(store, key)
    shards = plan(pictures, seen, shard_of, config.prepare.pictures_per_shard)
    failed |= encode(runtime, config, shards)
    runtime.reload()
    shard_of |= whole_shards(store, key, known=set(shard_of.values()))
    entries = {name: Entry(s, shard_of[s.sha256]) for name, s in seen.items() if s.sha256 in shard_of}
    write_index(folder, key, entries)
    remove_leftovers(store)
    runtime.commit()
    if missing := [name for _, image in pictures if (name := picture_name(image)) not in entries]:
        raise incomplete(len(pictures), missing, failed)
    used = {entry.shard for entry in entries.values()}
    return {
        "pictures": len(entries),
        "encoded": sum(map(len, shards)),
        "shards": len(used),
        "bytes": sum((store / name).stat().st_size for name in used),
        "cache": str(store),
    }


def earlier(run: Path) -> dict[str, Entry]:
    """What the run knew when it last ended: spares hashing the pictures whose files look the same."""
    try:
        return read_index(run)[1]
    except DatasetError:
        return {}


def look_at(images: list[Path], before: dict[str, Entry]) -> tuple[dict[str, Seen], dict[str, str]]:
    """(name of a picture -> what it holds, name of a picture -> why it cannot be read)."""

    def at(image: Path) -> Seen | str:
        entry = before.get(picture_name(image))
        try:
            return entry.seen if entry and entry.seen.fits(image.stat()) else look(image)[0]
        except OSError as error:
            return f"it cannot be read: {error.strerror}"

    seen, failed, start = {}, {}, time.monotonic()
    for done, (image, found) in enumerate(zip(images, ahead(at, images), strict=True), 1):
        if isinstance(found, str):
            failed[picture_name(image)] = found
        else:
            seen[picture_name(image)] = found
        if done % LOG_EVERY == 0:
            log.info("%d of %d pictures hashed, %.0f/s", done, len(images), done / (time.monotonic() - start))
    return seen, failed


def whole_shards(store: Path, key: dict[str, Any], known: Collection[str] = ()) -> dict[bytes, str]:
    """SHA-256 of a picture -> file name of its shard, of every shard that is whole. known: not to be read again."""

    def check(path: Path) -> list[str] | str:
        try:
            return verified(path, key)
        except DatasetError as error:
            return str(error).splitlines()[0]

    shard_of: dict[bytes, str] = {}
    paths = sorted(path for path in store.glob(f"*{SUFFIX}") if path.name not in known)
    for path, found in zip(paths, ahead(check, paths), strict=True):
        if isinstance(found, str):
            log.warning("%s; its pictures are encoded anew, the file is replaced or may be removed", found)
        else:
            shard_of |= {bytes.fromhex(picture): path.name for picture in found}
    return shard_of


def plan(
    pictures: list[tuple[int, Path]], seen: dict[str, Seen], shard_of: dict[bytes, str], size: int
) -> list[list[Task]]:
    """What is missing, each content once, in shards of `size`.

    The order is the data set's, so that a run that was stopped anywhere goes on with the very shards it lacks, and a
    batch of training finds the views of a state in few files.
    """
    missing: dict[bytes, Task] = {}
    for base, image in pictures:
        name = picture_name(image)
        if name in seen and (content := seen[name].sha256) not in shard_of:
            missing.setdefault(content, Task(base, name, content.hex()))
    tasks = list(missing.values())
    return [tasks[i : i + size] for i in range(0, len(tasks), size)]


def encode(runtime: Runtime, config: Config, shards: list[list[Task]]) -> dict[str, str]:
    """Deal the shards out to at most prepare.containers parts. Returns name of a picture -> why it was not encoded."""
    total, done, failed = sum(map(len, shards)), 0, {}
    hands = [shards[i :: config.prepare.containers] for i in range(min(config.prepare.containers, len(shards)))]
    log.info("%d pictures to encode: %d shards, %d parts", total, len(shards), len(hands))
    progress = Progress(runtime.session, total, "picture")
    for hand, problems in zip(hands, runtime.map(encode_shards, [(config, hand) for hand in hands]), strict=True):
        failed |= problems
        done += sum(map(len, hand))
        progress.update(done)
    return failed


def remove_leftovers(store: Path) -> None:
    """Temporary files of parts that were killed. Young ones may belong to a job that runs at the same time."""
    for path in store.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # that job tidies up too
            if time.time() - path.stat().st_mtime > LEFTOVER:
                path.unlink()


def incomplete(total: int, missing: list[str], failed: dict[str, str]) -> DatasetError:
    shown = "".join(f"\n    {name}: {failed.get(name, 'its shard is not there, or damaged')}" for name in missing[:5])
    return DatasetError(
        f"{len(missing)} of {total} pictures are not in the latent cache:{shown}",
        "repair or remove these pictures (check_dataset with data.verify_pixels lists them), then run prepare again",
    )

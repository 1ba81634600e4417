"""Write synthetic persons in the data set's format, with the truth in a table beside them."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from harald import runs
from harald.config import DATASETS, Config
from harald.data.people import COLUMNS, PEOPLE
from harald.errors import ConfigError
from harald.progress import Progress
from harald.proving_ground.dataset import (
    BASES,
    BLOCK,
    DIGESTS,
    Place,
    Plan,
    Truth,
    Written,
    digest,
    make,
    places,
    renderers,
)
from harald.runtime import Runtime

log = logging.getLogger(__name__)

SIDE = 128  # pixels


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    states: int,
    views: int = 16,
    state_free: bool = False,
    look_alikes: bool = False,
    held_out: bool = False,
    parts: bool = False,
    workers: int = 0,
) -> dict:
    """Twins (states 2k and 2k + 1) go to different base folders. Done again with the same flags, or with more states,
    it completes what is there, and changes nothing that is not its own.

    On this machine the data set's own folders are filled. They are read-only on Modal: there it goes to the output
    volume. parts: a mask of the small worn things beside each picture; workers: 0 for all processors. Raises
    ConfigError for flags out of range, and for a base folder with states that it would not write in just this way.
    """
    for flag, value, least, most in (("states", states, 1, 100_000), ("views", views, 2, 200)):
        if not least <= value <= most:
            raise ConfigError(f"--{flag} is {value}", f"use {least} to {most}")
    folder = runs.open_run(
        runtime, "demo_dataset", run_name, config, states=states, views=views, state_free=state_free,
        look_alikes=look_alikes, held_out=held_out, parts=parts,
    )  # fmt: skip
    local = runtime.remote_map is None
    root = (runtime.root if local else folder) / "dataset"
    plan = Plan(config.seed, views, SIDE, state_free, look_alikes, held_out, parts)
    truth = Truth(root, plan)
    truth.check_plan()
    everything = places(plan, states)
    _refuse_strangers(root, everything)
    missing = [place for place in everything if not _is_complete(truth, place)]
    written = 0
    progress = Progress(runtime.session, states * views, "picture", (states - len(missing)) * views)
    for block, group in _blocks(missing, workers, plan):
        new = {place.index for place, _ in group}
        rows = [row for row in truth.read(block) if row["index"] not in new]
        for place, made in group:
            for name, content in made.files.items():
                runs.write_bytes(place.below(root) / name, content)
            rows += made.rows
        truth.write(block, sorted(rows, key=lambda row: row["index"]))
        written += len(group)
        progress.update((states - len(missing) + written) * views)
    _write_people(truth, everything)
    if not local:
        _say_how_to_use(root, folder.name)
    return {"states": states, "views": states * views, "written": written, "dataset": str(root)}


def _blocks(missing: list[Place], workers: int, plan: Plan) -> Iterator[tuple[int, list[tuple[Place, Written]]]]:
    """Block of the truth table -> its missing states, made; one block is held at a time."""
    workers = min(workers or os.cpu_count() or 1, len(missing))
    with renderers(max(1, workers)) as pool:
        for block in sorted({place.index // BLOCK for place in missing}):
            group = [place for place in missing if place.index // BLOCK == block]
            made = (pool.map if pool else map)(make, [plan] * len(group), group)
            yield block, list(zip(group, made, strict=True))


def _is_complete(truth: Truth, place: Place) -> bool:
    """All files are there with the bytes that the table tells. Raises ConfigError if one has other bytes, or none of
    ours bears its name; what the table does not know yet is compared with what would be written.
    """
    home = place.below(truth.root)
    if not home.exists():
        return False
    known = {
        f"{row['domain']}_view_{row['view']:02d}{ending}": row[column]
        for row in truth.read(place.index // BLOCK)
        for ending, column in DIGESTS.items()
        if row["index"] == place.index and column in row
    }
    recorded = bool(known)
    if not recorded:
        known = {name: digest(content) for name, content in make(truth.plan, place).files.items()}
    found = [path for path in sorted(home.iterdir()) if not (path.name.startswith(".") and path.suffix == ".tmp")]
    for path in found:
        if not path.is_file() or known.get(path.name) != runs.sha256(path):
            raise ConfigError(
                f"{truth.root} has a state that this call would not write: {path.relative_to(truth.root)}",
                "nothing was changed; set HARALD_ROOT to an empty folder, or move the data set away",
            )
    return recorded and len(found) == len(known)


def _write_people(truth: Truth, everything: list[Place]) -> None:
    """Which states are one person: twins lie in different base folders."""
    blocks = sorted({place.index // BLOCK for place in everything})
    who = {row["state_id"]: row["identity"] for block in blocks for row in truth.read(block)}
    for base in sorted({place.base for place in everything}):
        lines = [f"{place.state_id},person_{who[place.state_id]}" for place in everything if place.base == base]
        table, said = truth.root / str(base) / PEOPLE, [",".join(COLUMNS), *lines]
        if table.exists() and not set(table.read_text().splitlines()) <= set(said):
            raise ConfigError(f"{table} names states that this call would not write", "move it away, and start again")
        runs.write_text(table, "\n".join([*said, ""]))


def _refuse_strangers(root: Path, everything: list[Place]) -> None:
    """Raises ConfigError for a state in a base folder that is none of this call's."""
    ours = {place.below(root) for place in everything}
    for base in BASES:
        for home in sorted((root / str(base)).glob("seed_*")):
            if home not in ours:
                raise ConfigError(
                    f"{home} is not one of the states of this call",
                    "nothing was changed; move it away, raise --states, or use another HARALD_ROOT",
                )


def _say_how_to_use(root: Path, run_name: str) -> None:
    for base in BASES:
        if (root / str(base)).exists():
            volume, source = DATASETS.get(base, "DATASET_VOLUME"), f"/demo_dataset/{run_name}/dataset/{base}"
            put = f"modal volume put {volume} {base}/ /"
            log.info("to use it: modal volume get harald-output %s . && %s", source, put)

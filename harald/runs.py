"""Output folders: safe names, what made them, atomic writes."""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import re
import uuid
from pathlib import Path
from typing import Any

from harald import __version__
from harald.config import PINS, Config
from harald.errors import ConfigError
from harald.runtime import Runtime
from harald.settings import config_hash, from_json, identity_hash, to_json

log = logging.getLogger(__name__)

CONFIG, INPUTS, FINGERPRINT = "config.json", "inputs.json", "fingerprint.json"
LEASE, STATUS, STOP = "lease.json", "status.json", "stop.json"  # see running/
_NO_RESULT = {CONFIG, INPUTS, FINGERPRINT, LEASE, STATUS, STOP}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(value: str, what: str) -> str:
    """The value, if it is one plain folder name: letters, digits, '.', '_', '-'. Raises ConfigError."""
    if not _NAME.fullmatch(value) or ".." in value:
        raise ConfigError(
            f"{what} is {value!r}",
            "use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit",
        )
    return value


def open_run(runtime: Runtime, job: str, run_name: str, config: Config, **inputs: Any) -> Path:
    """/mnt/output/<job>/<run>, made if need be, with the resolved config, its hash, the inputs and a fingerprint.

    inputs: the job's own flags (JSON-ready) that its results depend on. An empty name becomes <preset>-s<seed>-<hash of
    all that>. A folder that holds results of another configuration or other inputs is refused, never mixed.
    """
    digest = hashlib.sha256(json.dumps([config_hash(config), inputs], sort_keys=True).encode()).hexdigest()[:6]
    name = safe_name(run_name or f"{config.preset}-s{config.seed}-{digest}", "--run-name")
    folder = runtime.output / job / name
    if (folder / CONFIG).exists() and any(map(_is_result, folder.iterdir())):
        _refuse_other(job, folder, config, inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        runtime.session.hold(folder, config, inputs)
        remove_leftovers(folder)
        write_json(folder / INPUTS, inputs)
        write_json(folder / FINGERPRINT, {"job": job, "config_hash": config_hash(config), **fingerprint()})
        write_text(folder / CONFIG, to_json(config) + "\n")  # last: with it the folder is a run
    except OSError as error:
        raise ConfigError(
            f"the output folder {folder} cannot be written: {error.strerror}",
            "check HARALD_ROOT (locally) or the output volume, its permissions and its free space",
        ) from error
    return folder


def _is_result(path: Path) -> bool:
    """Not what `open_run` and the session write, whole or half."""
    return path.name not in _NO_RESULT and not (path.name.startswith(".") and path.suffix == ".tmp")


def _refuse_other(job: str, folder: Path, config: Config, inputs: dict[str, Any]) -> None:
    before = load_config(folder)
    changes = (
        []
        if identity_hash(before) == identity_hash(config)
        else _differences(json.loads(to_json(before)), json.loads(to_json(config)))
    )
    changes += _differences(json.loads((folder / INPUTS).read_text()), inputs)
    if changes:
        raise ConfigError(
            f"run {folder.name!r} of {job} exists with another configuration: {'; '.join(changes)}",
            f"choose another --run-name, repeat the old flags, or remove {folder}",
        )


def find_run(runtime: Runtime, job: str, run_name: str) -> Path:
    """The folder of an earlier run; an empty name means the newest one. Raises ConfigError."""
    parent = runtime.output / job
    runs = sorted((p for p in parent.iterdir() if (p / CONFIG).exists()), key=_age) if parent.is_dir() else []
    if not run_name:
        if not runs:
            raise ConfigError(f"there is no run of {job} under {parent}", f"start one: {job}")
        return runs[-1]
    folder = parent / safe_name(run_name, "the run's name")
    if not (folder / CONFIG).exists():
        raise ConfigError(
            f"there is no run {run_name!r} of {job} under {parent}",
            f"known: {', '.join(p.name for p in runs) or 'none'}",
        )
    return folder


def load_config(folder: Path) -> Config:
    return from_json((folder / CONFIG).read_text())


def fingerprint() -> dict[str, Any]:
    """What the bytes of a result depend on besides its config: versions, GPU, platform."""
    import torch

    versions = {name: _version(name) for name in PINS}
    versions["harald"] = __version__  # in a container harald is source without package metadata
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {**versions, "torch": torch.__version__, "python": platform.python_version()},
        "gpu": gpu,
        "cuda": torch.version.cuda,
        "machine": platform.machine(),
        "threads": None if gpu else torch.get_num_threads(),
    }


def _version(name: str) -> str | None:
    """None for a package that is not there: a machine that trains needs none of the page's."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def write_bytes(path: Path, data: bytes) -> None:
    """A complete file or none: temporary name, flush to disk, rename. The parent folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def remove_leftovers(folder: Path) -> None:
    """Of `write_bytes` calls that were killed. The caller holds the folder."""
    for leftover in folder.glob(".*.tmp"):
        if leftover.is_file():
            leftover.unlink()


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _age(folder: Path) -> tuple[int, str]:
    return (folder / CONFIG).stat().st_mtime_ns, folder.name


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    """'train.steps 40 -> 50' for every value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = sorted(set(before) | set(after))
        return [row for n in names for row in _differences(before.get(n), after.get(n), f"{path}.{n}" if path else n)]
    return [] if before == after else [f"{path} {json.dumps(before)} -> {json.dumps(after)}"]

"""Output folders: safe names, what made them, atomic writes."""

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

from harald.config import PINS, Config
from harald.errors import ConfigError
from harald.runtime import Runtime
from harald.settings import config_hash, from_json, identity_hash, to_json

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def safe_name(value: str, what: str) -> str:
    """The value, if it is one plain folder name: letters, digits, '.', '_', '-'. Raises ConfigError."""
    if not _NAME.fullmatch(value) or ".." in value:
        raise ConfigError(
            f"{what} is {value!r}", "use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
        )
    return value


def open_run(runtime: Runtime, job: str, run_name: str, config: Config) -> Path:
    """/mnt/output/<job>/<run>, made if need be, with the resolved config, its hash and a fingerprint.

    An empty name becomes <preset>-s<seed>-<hash>. A folder that a different configuration made is refused, never mixed.
    """
    name = safe_name(run_name or f"{config.preset}-s{config.seed}-{config_hash(config)[:6]}", "--run-name")
    folder = runtime.output / job / name
    config_file = folder / "config.json"
    if config_file.exists():
        before = from_json(config_file.read_text())
        if identity_hash(before) != identity_hash(config):
            raise ConfigError(
                f"run {name!r} of {job} exists with another configuration: {_differences(before, config)}",
                f"choose another --run-name, repeat the old flags, or remove {folder}",
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(config_file, to_json(config) + "\n")
    write_json(folder / "fingerprint.json", {"job": job, "config_hash": config_hash(config), **fingerprint()})
    return folder


def find_run(runtime: Runtime, job: str, run_name: str) -> Path:
    """The folder of an earlier run; an empty name means the newest one. Raises ConfigError."""
    parent = runtime.output / job
    runs = sorted((p for p in parent.iterdir() if (p / "config.json").exists()), key=_age) if parent.is_dir() else []
    if not run_name:
        if not runs:
            raise ConfigError(f"there is no run of {job} under {parent}", f"start one: {job}")
        return runs[-1]
    folder = parent / safe_name(run_name, "the run's name")
    if not (folder / "config.json").exists():
        raise ConfigError(
            f"there is no run {run_name!r} of {job} under {parent}", f"known: {', '.join(p.name for p in runs) or 'none'}"
        )
    return folder


def load_config(folder: Path) -> Config:
    return from_json((folder / "config.json").read_text())


def fingerprint() -> dict[str, Any]:
    """What the bytes of a result depend on besides its config: versions, GPU, platform."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in (*PINS, "harald")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"versions": {**versions, "torch": torch.__version__, "python": platform.python_version()},
            "gpu": gpu, "cuda": torch.version.cuda, "machine": platform.machine(),
            "threads": None if gpu else torch.get_num_threads()}


def write_bytes(path: Path, data: bytes) -> None:
    """A complete file or none: temporary name, flush to disk, rename. The parent folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _age(folder: Path) -> tuple[int, str]:
    return (folder / "config.json").stat().st_mtime_ns, folder.name


def _differences(before: Config, after: Config) -> str:
    old, new = (json.loads(to_json(c)) for c in (before, after))
    rows = []

    def walk(a: Any, b: Any, path: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for name in a:
                walk(a[name], b[name], f"{path}.{name}" if path else name)
        elif a != b:
            rows.append(f"{path} {json.dumps(a)} -> {json.dumps(b)}")

    walk(old, new, "")
    return "; ".join(rows)

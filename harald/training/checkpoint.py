"""Checkpoints: a folder that appears by one rename, with the hash of every file. Safetensors and JSON, no pickle."""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from harald.encoder.model import DESCRIPTION, WEIGHTS, PersonEncoder
from harald.errors import TrainingError
from harald.runs import sha256, write_bytes, write_json
from harald.training.disk import persist
from harald.training.validation import best_step

log = logging.getLogger(__name__)

OPTIMIZER, METRICS, STATE = "optimizer.safetensors", "metrics.jsonl", "state.json"


def save_checkpoint(
    folder: Path,
    step: int,
    encoder: PersonEncoder,
    optimizer: torch.optim.Optimizer,
    metrics: bytes,
    identity: str,
    keep: int,
    confirm: Callable[[], None],
    extra: bool = False,
    best: int | None = None,
) -> Path:
    """Write <folder>/step_<step> completely, then rename it into place; only then remove all but the newest `keep` and
    the one of step `best`.

    metrics: the run's lines so far. confirm: raises where the run belongs to somebody else by now. extra: out of turn
    because the run is stopped; the next checkpoint removes it, so that a stopped run ends with the same files as
    another. Raises TrainingError if the disk stays full or away.
    """
    trained = {name: tensor.cpu().contiguous() for name, tensor in sorted(encoder.trained_state().items())}
    files = {
        WEIGHTS: save(trained, {"format": encoder.description()["format"]}),
        DESCRIPTION: json.dumps(encoder.description(), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n",
        OPTIMIZER: save(_optimizer_state(encoder, optimizer)),
        METRICS: metrics,
    }
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    state = {"step": step, "identity": identity, "sha256": hashes, **({"extra": True} if extra else {})}
    final = folder / name_of(step)

    def attempt() -> None:
        try:
            _write(final, files, state, confirm)
        except OSError:
            _remove_leftovers(folder)
            raise

    persist(attempt, f"checkpoint {final.name}", folder.parent, sum(map(len, files.values())))
    tidy(final, keep, best)
    return final


def tidy(newest: Path, keep: int, best: int | None = None) -> None:
    """Remove all but `keep` checkpoints up to the newest one and that of step `best`, and what was left half written or
    half removed.
    """
    upto = [path for path in list_checkpoints(newest.parent) if path.name <= newest.name]
    kept = [path for path in upto if path == newest or not _is_extra(path)][-keep:]
    kept += [path for path in upto if best is not None and path.name == name_of(best)]
    for old in upto:
        if old not in kept:
            os.replace(old, _aside(old))
    _remove_leftovers(newest.parent)


def _write(final: Path, files: dict[str, bytes], state: dict[str, Any], confirm: Callable[[], None]) -> None:
    confirm()
    final.parent.mkdir(exist_ok=True)
    _remove_leftovers(final.parent)
    temporary = _aside(final)
    for name, data in files.items():
        write_bytes(temporary / name, data)
    write_json(temporary / STATE, state)
    confirm()
    if final.exists():  # damaged, else the run had gone on behind it
        os.replace(final, _aside(final))
    os.replace(temporary, final)


def _aside(path: Path) -> Path:
    return path.with_name(f".{uuid.uuid4().hex}.tmp")


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def _is_extra(path: Path) -> bool:
    try:
        return json.loads((path / STATE).read_text()).get("extra", False)
    except (OSError, ValueError):
        return False


def name_of(step: int) -> str:
    return f"step_{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if path.is_dir())


def last_good(folder: Path, identity: str = "") -> Path | None:
    """The newest checkpoint whose files are all there and unharmed.

    identity: of the config that is to go on from it; empty: it is only read. Raises TrainingError if another config
    made it.
    """
    for path in reversed(list_checkpoints(folder)):
        problem = _problem(path)
        if problem:
            log.warning("checkpoint %s is passed over: %s", path.name, problem)
            continue
        if identity and json.loads((path / STATE).read_text())["identity"] != identity:
            raise TrainingError(f"checkpoint {path} belongs to another configuration", "choose another --run-name")
        return path
    return None


def best_good(folder: Path) -> Path | None:
    """The checkpoint of the best score that the newest good one knows of; without scores, or where it is damaged, the
    newest.
    """
    newest = last_good(folder)
    lines = newest / METRICS if newest else None
    step = best_step(lines.read_bytes()) if lines and lines.exists() else None
    best = folder / name_of(step) if step is not None else newest
    return best if best == newest or (best and not _problem(best)) else newest


def load_checkpoint(path: Path, encoder: PersonEncoder, optimizer: torch.optim.Optimizer) -> int:
    """Put the trained parts and the optimiser's state back. Returns the step."""
    encoder.load_trained_state(load_file(path / WEIGHTS))
    flat = load_file(path / OPTIMIZER)
    kept: dict[str, dict[str, Tensor]] = {}
    for place, tensor in flat.items():
        name, _, field = place.rpartition("/")
        kept.setdefault(name, {})[field] = tensor
    template = optimizer.state_dict()
    names = _names(encoder, optimizer)
    template["state"] = {index: kept[name] for index, name in enumerate(names) if name in kept}
    optimizer.load_state_dict(template)
    return int(json.loads((path / STATE).read_text())["step"])


def _optimizer_state(encoder: PersonEncoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = _names(encoder, optimizer)
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{field}": value.detach().cpu().contiguous()
        for index, fields in sorted(state.items())
        for field, value in sorted(fields.items())
    }


def _names(encoder: PersonEncoder, optimizer: torch.optim.Optimizer) -> list[str]:
    """Of the parameters, in the optimiser's order."""
    known = {id(p): name for name, p in encoder.named_parameters()}
    return [known[id(p)] for group in optimizer.param_groups for p in group["params"]]


def _problem(path: Path) -> str:
    try:
        hashes = json.loads((path / STATE).read_text())["sha256"]
        bad = [name for name, value in hashes.items() if sha256(path / name) != value]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return f"damaged files: {', '.join(bad)}" if bad else ""

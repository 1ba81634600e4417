"""Checkpoints: a folder that appears by one rename, with the hash of every file. Safetensors and JSON, no pickle."""

import json
import logging
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from harald.encoder.model import DESCRIPTION, WEIGHTS, PersonEncoder
from harald.errors import TrainingError
from harald.runs import sha256, write_bytes, write_json

log = logging.getLogger(__name__)

OPTIMIZER, STATE = "optimizer.safetensors", "state.json"


def save_checkpoint(
    folder: Path, step: int, encoder: PersonEncoder, optimizer: torch.optim.Optimizer, identity: str, keep: int
) -> Path:
    """Write <folder>/step_<step> completely, then rename it into place; remove all but the newest `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary, final = folder / f".{uuid.uuid4().hex}.tmp", folder / f"step_{step:08d}"
    trained = {name: tensor.cpu().contiguous() for name, tensor in sorted(encoder.trained_state().items())}
    write_bytes(temporary / WEIGHTS, save(trained, {"format": encoder.description()["format"]}))
    write_json(temporary / DESCRIPTION, encoder.description())
    write_bytes(temporary / OPTIMIZER, save(_optimizer_state(encoder, optimizer)))
    hashes = {name: sha256(temporary / name) for name in (WEIGHTS, DESCRIPTION, OPTIMIZER)}
    write_json(temporary / STATE, {"step": step, "identity": identity, "sha256": hashes})
    if final.exists():
        shutil.rmtree(final)
    os.replace(temporary, final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    for leftover in folder.glob(".*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step_*") if path.is_dir())


def last_good(folder: Path, identity: str) -> Path | None:
    """The newest checkpoint whose files are all there and unharmed. Raises TrainingError if another config made it."""
    for path in reversed(list_checkpoints(folder)):
        problem = _problem(path)
        if problem:
            log.warning("checkpoint %s is passed over: %s", path.name, problem)
            continue
        if json.loads((path / STATE).read_text())["identity"] != identity:
            raise TrainingError(f"checkpoint {path} belongs to another configuration", "choose another --run-name")
        return path
    return None


def load_checkpoint(path: Path, encoder: PersonEncoder, optimizer: torch.optim.Optimizer) -> int:
    """Put the trained parts and the optimiser's state back. Returns the step."""
    encoder.load_trained_state(load_file(path / WEIGHTS))
    flat = load_file(path / OPTIMIZER)
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    template = optimizer.state_dict()
    template["state"] = {
        index: {
            field: flat[f"{name}/{field}"] for field in ("step", "exp_avg", "exp_avg_sq") if f"{name}/{field}" in flat
        }
        for index, name in enumerate(names)
        if f"{name}/step" in flat
    }
    optimizer.load_state_dict(template)
    return int(json.loads((path / STATE).read_text())["step"])


def _optimizer_state(encoder: PersonEncoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = [name for name, p in encoder.named_parameters() if p.requires_grad]
    state: dict[int, dict[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{field}": value.detach().cpu().contiguous()
        for index, fields in sorted(state.items())
        for field, value in sorted(fields.items())
    }


def _problem(path: Path) -> str:
    try:
        hashes = json.loads((path / STATE).read_text())["sha256"]
        bad = [name for name, value in hashes.items() if sha256(path / name) != value]
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return f"damaged files: {', '.join(bad)}" if bad else ""

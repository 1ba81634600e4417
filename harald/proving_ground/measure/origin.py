"""What was measured, by which command, with which code, on what."""

import hashlib
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import torch

from harald import determinism
from harald.config import ROOT
from harald.evaluation.bar import Origin

ENCODER = "mini-encoder"  # its folder among the weights
CHANGES = ("status", "--porcelain", "--", ".", ":(exclude)docs/results")


def here() -> Origin:
    """Of this process."""
    return Origin(command(), commit(ROOT), device())


def command() -> str:
    """The command line as it was typed, the interpreter without its folder."""
    return shlex.join([Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]])


def commit(root: Path) -> str:
    """The checkout's commit, with '+changes' where files differ from it (other than the results that a measurement
    writes); 'unknown' outside of a checkout.
    """
    if not (root / ".git").exists():
        return "unknown"
    try:
        name, changes = (_git(root, *words) for words in (("rev-parse", "HEAD"), CHANGES))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}+changes" if changes else name


def device() -> str:
    if determinism.device().type == "cuda":
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} threads"


def digest(weights: Path) -> str:
    """Of names and contents of all files of the models that are measured, which the encoder is not: rows of other
    weights must never meet.
    """
    total = hashlib.sha256()
    files = (path for path in weights.glob("mini-*/**/*") if path.is_file())
    for path in sorted(path for path in files if ENCODER not in path.parts):
        total.update(f"{path.relative_to(weights).as_posix()}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, text=True).stdout.strip()

"""Same config, same seed, same GPU type, same lock file: the same bytes. The contract stands in docs/determinism.md."""

import hashlib
import os
import random

import numpy as np
import torch


def enable(seed: int, strict: bool = True) -> None:
    """Strict deterministic algorithms, fixed seeds, no autotuning. Call it before any CUDA work.

    Our own lines instead of diffusers' `enable_full_determinism`, which sets CUDA_LAUNCH_BLOCKING=1 (slow).
    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(strict)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[bad-assignment]  # a guard that costs time
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = strict
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    # cuDNN attention is outside of strict mode (pytorch/pytorch#182551)
    torch.backends.cuda.enable_cudnn_sdp(not strict)
    torch.backends.mha.set_fastpath_enabled(False)  # the same arithmetic in training and inference


def key(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for one named draw: a hash of (seed, stream, step, sample id, ...)."""
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: str | int) -> torch.Generator:
    """A CPU generator for one named draw, so that batch make-up, workers, resume and world size change nothing."""
    return torch.Generator("cpu").manual_seed(key(seed, *parts))


def rng(seed: int, *parts: str | int) -> random.Random:
    """The same for choices (which views, which state)."""
    return random.Random(key(seed, *parts))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def dtype(name: str) -> torch.dtype:
    """'auto' is bfloat16 on CUDA and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if torch.cuda.is_available() else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]

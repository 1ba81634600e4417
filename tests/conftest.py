"""Shared by all tests. Set before torch is imported: strict determinism, no network, one thread a worker."""

import os
import signal
from pathlib import Path

import pytest

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
os.environ["HF_HUB_OFFLINE"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts background jobs so, and children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import torch

from harald.runtime import Runtime

torch.set_num_threads(1)  # pytest-xdist's workers share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: two workers then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """An empty tree of folders, as Modal mounts it at /mnt."""
    return Runtime.local(tmp_path)

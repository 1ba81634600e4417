"""Models of our own recipe in the cache."""

import shutil
from pathlib import Path

import pytest

from harald import hub
from harald.config import ModelRef
from harald.jobs.loading import ensure
from harald.proving_ground import mini_models

REF = ModelRef("harald/mini-encoder", recipe="mini_encoder")


def test_cache_follows_the_weights_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(mini_models.SHIPPED / "mini-encoder", tmp_path / "mini-encoder")
    monkeypatch.setattr(mini_models, "SHIPPED", tmp_path)
    cache = tmp_path / "cache"
    ensure(cache, REF)
    before = hub.snapshot(cache, REF)
    ensure(cache, REF)
    assert hub.snapshot(cache, REF) == before
    (tmp_path / "mini-encoder" / "README.md").write_text("the next version")
    ensure(cache, REF)
    assert (hub.snapshot(cache, REF) / "README.md").read_text() == "the next version"
    shutil.rmtree(tmp_path / "mini-encoder")  # a package without weights takes what there is
    ensure(cache, REF)
    assert (hub.snapshot(cache, REF) / "README.md").read_text() == "the next version"

"""Checkpoints in the published form go through hub.py as QwenImage.load and PersonEncoder.new call it."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from harald import hub
from harald.base.qwen_image import QwenImage
from harald.config import LoraRef, tiny
from harald.encoder.model import PersonEncoder
from harald.errors import ModelError
from harald.published.checkpoint import headers, layout_of
from harald.published.facts import QWEN_IMAGE
from tests.models import CPU, FLOAT
from tests.published.checkpoints import BASE, ENCODER, install, make, published, scaled, write


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """The written repositories; tests copy what they break."""
    home = tmp_path_factory.mktemp("repositories")
    return {ref.repo: write(published(ref), home / ref.repo) for ref in (BASE, ENCODER)}


@pytest.fixture
def broken(sources, tmp_path):
    """A copy of the encoder's repository, and a way to install and load it."""
    copy = shutil.copytree(sources[ENCODER.repo], tmp_path / "copy")
    return copy, tmp_path / "cache"


def load_base(cache: Path) -> QwenImage:
    return QwenImage.load(cache, BASE, LoraRef(), CPU, FLOAT)


def load_encoder(cache: Path, ref=ENCODER) -> PersonEncoder:
    return PersonEncoder.new(cache, tiny().encoder, ref, torch.ones(64), "output", BASE.repo, 0, CPU, FLOAT)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_sharded_base_model_loads_every_tensor_under_its_old_name(sources, tmp_path):
    install(tmp_path, BASE, sources[BASE.repo])
    model = load_base(tmp_path)
    names = headers(sources[BASE.repo] / "text_encoder")
    assert {name.split(".")[0] for name in names} == {"model", "visual", "lm_head"}  # transformers 4.53 wrote these
    assert len(shards(sources[BASE.repo] / "text_encoder")) > 1 < len(shards(sources[BASE.repo] / "transformer"))
    for part in (part for part in QWEN_IMAGE.parts if part.parameters):
        stored = {k: v for s in shards(sources[BASE.repo] / part.folder) for k, v in load_file(s).items()}
        loaded = getattr(model.pipeline, part.folder).state_dict()
        assert len(stored) == len(loaded)
        for name, tensor in stored.items():
            new = re.sub(r"^visual\.", "model.visual.", re.sub(r"^model\.", "model.language_model.", name))
            assert torch.equal(tensor, loaded[new if part.folder == "text_encoder" else name]), name
    assert model.text_model.config.get_text_config().rope_parameters["mrope_section"] == [2, 3, 3]


def test_sharded_encoder_loads_and_makes_tokens(sources, tmp_path):
    install(tmp_path, ENCODER, sources[ENCODER.repo])
    encoder = load_encoder(tmp_path)
    assert encoder.vlm.config.text_config.rope_parameters["rope_theta"] == 5_000_000
    assert encoder([[Image.new("RGB", (64, 96))]]).shape == (1, 16, 64)


def test_tied_checkpoint_without_output_rows_is_whole(tmp_path):
    """2B and 4B: the output rows are the input rows and not in the files."""
    ref = dataclasses.replace(ENCODER, repo="Qwen/Qwen3-VL-4B-Instruct")
    folder = write(published(ref), tmp_path / "source")
    assert "lm_head.weight" not in headers(folder)
    install(tmp_path / "cache", ref, folder)
    assert load_encoder(tmp_path / "cache", ref).queries.shape == (16, 64)


def test_small_checkpoints_have_the_published_kinds_of_tensors():
    """So that what loads here stands for the real files: same names, other sizes and counts."""
    for ref in (BASE, ENCODER):
        for part in (part for part in published(ref).parts if part.kind.startswith(("Qwen3VL", "QwenImageT"))):
            small = layout_of(
                (n, t.shape) for n, t in make(part.kind, scaled(published(ref), part)).state_dict().items()
            )
            assert set(small) == set(published(ref).layout(part))


def test_missing_shard_is_named(broken):
    folder, cache = broken
    shards(folder)[1].unlink()
    hub.install(cache, ENCODER.repo, folder)
    with pytest.raises(ModelError, match=r"half-downloaded: missing model-00002-of-\d+\.safetensors"):
        load_encoder(cache)


def test_damaged_shard_is_named_and_counts_as_not_cached(broken):
    folder, cache = broken
    victim = shards(folder)[1]
    victim.write_bytes(victim.read_bytes()[:-1])
    hub.install(cache, ENCODER.repo, folder)
    assert not hub.is_cached(cache, ENCODER)
    with pytest.raises(ModelError, match=r"(?s)is damaged: model-00002-of-\d+\.safetensors.*run download_models again"):
        load_encoder(cache)


def test_download_deletes_damaged_files_first_so_that_they_are_fetched(broken, monkeypatch):
    folder, cache = broken
    victim = shards(folder)[1]
    victim.write_bytes(b"not a safetensors file")
    commit = hub.install(cache, ENCODER.repo, folder)
    monkeypatch.setenv("HUGGINGFACE_TOKEN", "hf_dummy")
    monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: type("Info", (), {"sha": commit}))
    link = hub.home(cache, ENCODER.repo) / "snapshots" / commit / victim.name
    blob = link.resolve()
    hub.download(cache, ENCODER.repo, "main")
    assert not blob.exists() and not link.is_symlink()
    assert (link.parent / shards(folder)[0].name).exists()


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae", "encoder"])
def test_missing_tensor_is_an_error_and_not_random_numbers(part, sources, tmp_path):
    """Both libraries only warn and go on with fresh weights."""
    ref, folder = (ENCODER, "") if part == "encoder" else (BASE, part)
    copy = shutil.copytree(sources[ref.repo], tmp_path / "copy")
    file = shards(copy / folder)[-1]
    tensors = load_file(file)
    lost = sorted(tensors)[0]
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    (index,) = (copy / folder).glob("*.index.json")
    described = json.loads(index.read_text())
    del described["weight_map"][lost]
    index.write_text(json.dumps(described))
    install(tmp_path / "cache", ref, copy)
    with pytest.raises(ModelError, match=r"(?s)lacks 1 tensors of \w+, first .*run doctor"):
        (load_encoder if part == "encoder" else load_base)(tmp_path / "cache")


@pytest.mark.parametrize("part", ["text_encoder", "transformer", "vae", "encoder"])
def test_tensor_of_another_shape_is_named(part, sources, tmp_path):
    ref, folder = (ENCODER, "") if part == "encoder" else (BASE, part)
    copy = shutil.copytree(sources[ref.repo], tmp_path / "copy")
    file = shards(copy / folder)[-1]
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].new_zeros(3, 5, 7)
    save_file(tensors, file, {"format": "pt"})
    install(tmp_path / "cache", ref, copy)
    with pytest.raises(ModelError, match=r"(?s)holds a tensor that does not fit \w+ of its configuration.*run doctor"):
        (load_encoder if part == "encoder" else load_base)(tmp_path / "cache")


def test_unknown_revision_is_named(sources, tmp_path):
    install(tmp_path, ENCODER, sources[ENCODER.repo])
    with pytest.raises(ModelError, match=r"revision v9\) is not in the cache"):
        load_encoder(tmp_path, dataclasses.replace(ENCODER, revision="v9"))

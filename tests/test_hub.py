"""One door to Hugging Face loading, and what it says when something is missing."""

import ast
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import harald
from harald import config, hub
from harald.config import LoraRef, ModelRef
from harald.errors import ConfigError, ModelError
from harald.proving_ground import mini_models

LOADING = {
    "from_pretrained",
    "from_single_file",
    "snapshot_download",
    "hf_hub_download",
    "load_lora_weights",
    "load_dataset",
    "model_info",
}
UNPICKLING = {"torch.load", "pickle.load", "pickle.loads", "joblib.load", "numpy.load", "np.load"}


def calls_in(source: str) -> list[str]:
    """Dotted names of everything that is called."""
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def unpickling_in(source: str) -> list[str]:
    """Calls that may unpickle; numpy's is harmless where it is told not to."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), [ast.unparse(keyword) for keyword in call.keywords]) for call in calls]
    return [name for name, given in named if name in UNPICKLING and "allow_pickle=False" not in given]


def sources() -> dict[str, str]:
    root = Path(harald.__file__).parent
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.py")}


def test_only_hub_loads_from_hugging_face():
    offenders = {
        (name, call)
        for name, text in sources().items()
        if name != "hub.py"
        for call in calls_in(text)
        if call.split(".")[-1] in LOADING
    }
    assert not offenders


def test_every_load_in_hub_hands_over_token_cache_and_revision():
    tree = ast.parse(sources()["hub.py"])
    calls = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and ast.unparse(n.func).split(".")[-1] in LOADING - {"model_info"}
    ]
    assert len(calls) >= 4
    for call in calls:
        given = {keyword.arg for keyword in call.keywords}
        assert {"token", "cache_dir", "revision"} <= given, ast.unparse(call)


def test_nothing_is_ever_unpickled():
    assert not {(name, call) for name, text in sources().items() for call in unpickling_in(text)}
    assert unpickling_in("np.load(path)") == ["np.load"]
    assert unpickling_in("np.load(path, allow_pickle=False)") == []


@pytest.fixture
def repo(tmp_path):
    """A small LoRA repository in a fresh cache."""
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    save_file({"a": torch.zeros(2)}, source / "weights.safetensors")
    ref = ModelRef("someone/thing")
    return cache, ref, hub.install(cache, ref.repo, source)


def test_installed_repository_has_the_real_cache_layout(repo):
    cache, ref, commit = repo
    home = cache / "models--someone--thing"
    link = home / "snapshots" / commit / "weights.safetensors"
    assert link.is_symlink() and link.resolve().parent == (home / "blobs").resolve()
    assert (home / "refs" / "main").read_text() == commit
    assert hub.snapshot(cache, ref) == home / "snapshots" / commit


def test_repositories_that_are_installed_at_the_same_time_are_all_there(tmp_path):
    source, cache = tmp_path / "source", tmp_path / "cache"
    source.mkdir()
    save_file({"a": torch.zeros(2)}, source / "weights.safetensors")
    names = [f"someone/thing-{number % 4}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        commits = set(pool.map(lambda name: hub.install(cache, name, source), names))
    assert [hub.revision(cache, name, "main") for name in names] == [*commits] * 16
    assert not list(cache.rglob("*.tmp"))


def test_recorded_revision_is_used_later(repo):
    cache, ref, commit = repo
    assert hub.revision(cache, ref.repo, "main") == commit
    (cache / "models--someone--thing" / "refs" / "main").write_text("0" * 40)  # the branch moves on
    assert hub.snapshot(cache, ref).name == commit


def test_missing_repository_names_it_and_the_cure(tmp_path):
    with pytest.raises(ModelError, match=r"(?s)no/such .*not in the cache.*download_models"):
        hub.snapshot(tmp_path, ModelRef("no/such"))


def test_half_downloaded_cache_is_told_apart_from_a_missing_one(repo):
    cache, ref, _ = repo
    next((cache / "models--someone--thing" / "blobs").iterdir()).unlink()
    assert not hub.is_cached(cache, ref)
    with pytest.raises(ModelError, match=r"half-downloaded: missing weights\.safetensors"):
        hub.snapshot(cache, ref)


def test_missing_shard_of_a_sharded_model_is_named(tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
    assert hub.missing_files(folder) == ["model-00002-of-00002.safetensors"]


def test_missing_part_of_a_pipeline_is_named(tmp_path):
    cache = tmp_path / "cache"
    mini_models.write(cache, config.tiny().models.base)
    folder = hub.snapshot(cache, config.tiny().models.base)
    shutil.rmtree(folder / "vae")
    assert hub.missing_files(folder) == ["vae/"]


def test_download_without_a_token_says_how_to_make_the_secret(tmp_path, monkeypatch):
    monkeypatch.delenv(config.HF_TOKEN_VARIABLE, raising=False)
    with pytest.raises(ModelError, match=r"(?s)HUGGINGFACE_TOKEN is not set.*modal secret create HF_SECRET"):
        hub.download(tmp_path, "Qwen/Qwen-Image", "main")


def test_download_without_a_network_is_no_traceback_and_shows_no_token(tmp_path, monkeypatch):
    monkeypatch.setenv(config.HF_TOKEN_VARIABLE, "hf_secret_value")
    assert os.environ.get("HF_HUB_OFFLINE") == "1"
    with pytest.raises(ModelError, match="cannot be downloaded") as error:
        hub.download(tmp_path, "Qwen/Qwen-Image", "main")
    assert "hf_secret_value" not in str(error.value)


def test_unreachable_network_is_told_plainly(tmp_path, monkeypatch):
    monkeypatch.setenv(config.HF_TOKEN_VARIABLE, "hf_secret_value")

    def refuse(*_: object, **__: object) -> None:
        raise hub.TransportError("Name or service not known")

    monkeypatch.setattr(hub.HfApi, "model_info", refuse)
    with pytest.raises(ModelError, match=r"Qwen/Qwen-Image cannot be downloaded: .*Name or service not known"):
        hub.download(tmp_path, "Qwen/Qwen-Image", "main")


def test_repository_name_cannot_leave_the_cache(tmp_path):
    with pytest.raises(ConfigError, match="the repository"):
        hub.snapshot(tmp_path, ModelRef("../../etc"))


def test_lora_outside_of_the_cache_is_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match="outside of the cache"):
        hub.load_lora(None, tmp_path / "cache", LoraRef(str(tmp_path / "lora.safetensors")), "style")


def test_recipes_are_deterministic(tmp_path):
    ref = config.tiny().models.encoder
    assert mini_models.write(tmp_path / "a", ref) == mini_models.write(tmp_path / "b", ref)

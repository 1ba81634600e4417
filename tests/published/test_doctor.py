"""What doctor says of cached models that are not what was published."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from harald import config, hub
from harald.config import Config, FewSteps, LoraRef, Models
from harald.jobs import doctor, model_checks
from harald.jobs.doctor import Unhealthy
from harald.published import facts
from harald.published.checkpoint import layout_of
from harald.published.facts import PUBLISHED, Published
from harald.settings import resolve
from tests.published.checkpoints import BASE, ENCODER, TOKENIZER, make, scaled, write
from tests.published.models import stored


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Repositories in the published form at small sizes, and the facts as they would be if these were published."""
    sources, data = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("data")
    for published in (PUBLISHED[BASE.repo], PUBLISHED[ENCODER.repo]):
        write(published, sources / published.repo)
        for part in published.parts:
            place = data / published.home.name / part.folder
            place.mkdir(parents=True, exist_ok=True)
            (place / part.config).write_text(json.dumps(scaled(published, part)))
            if part.parameters:
                tensors = stored(make(part.kind, scaled(published, part)))
                layout = layout_of((name, tensor.shape) for name, tensor in tensors.items())
                (place / "layout.json").write_text(json.dumps(layout))
    return sources, data


def without_size(published: Published) -> Published:
    return dataclasses.replace(published, parts=tuple(dataclasses.replace(p, size=None) for p in published.parts))


class Clinic:
    """A runtime with both repositories in its cache; `examine` runs doctor and returns its findings by name."""

    def __init__(self, runtime, copies: Path):
        self.runtime, self.copies = runtime, copies
        self.config = Config("full", Models(BASE, ENCODER), encoder=config.tiny().encoder)
        (runtime.root / "dataset" / "1" / "seed_1").mkdir(parents=True)
        self.runtime = dataclasses.replace(runtime, datasets={1: runtime.root / "dataset" / "1"})
        self.install()

    def install(self) -> None:
        for ref in (BASE, ENCODER):
            hub.install(self.runtime.hf_cache, ref.repo, self.copies / ref.repo)

    def edit(self, name: str, **fields: object) -> None:
        file = self.copies / name
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))
        self.install()

    def examine(self) -> tuple[dict[str, dict[str, str]], str]:
        said = ""
        try:
            doctor.run(self.runtime, self.config, "a")
        except Unhealthy as error:
            said = str(error)
        checks = json.loads((self.runtime.output / "doctor" / "a" / "doctor.json").read_text())
        shutil.rmtree(self.runtime.output / "doctor")
        return {check["check"]: check for check in checks}, said


@pytest.fixture
def clinic(world, runtime, tmp_path, monkeypatch) -> Clinic:
    sources, data = world
    monkeypatch.setenv(config.HF_TOKEN_VARIABLE, "hf_dummy")
    monkeypatch.setattr(facts, "DATA", data)
    monkeypatch.setattr(model_checks, "PUBLISHED", {repo: without_size(p) for repo, p in PUBLISHED.items()})
    ids = {token: TOKENIZER.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|image_pad|>")}
    monkeypatch.setattr(model_checks, "SPECIAL_TOKENS", ids)
    return Clinic(runtime, Path(shutil.copytree(sources, tmp_path / "copies")))


def test_healthy_cache_has_no_finding(clinic):
    checks, said = clinic.examine()
    assert not said
    assert checks["base model's files"]["detail"] == "Qwen/Qwen-Image: shards as their index says, as published"
    assert (
        "the template's head is 34 tokens; Qwen/Qwen-Image has 128 free vocabulary rows" in checks["tokens"]["detail"]
    )


@pytest.mark.parametrize(
    ("name", "fields", "check", "says"),
    [
        ("Qwen/Qwen-Image/vae/config.json", {"latents_std": [1.0] * 16}, "base model's files",
         "vae/config.json: latents_std is [1.0"),
        ("Qwen/Qwen-Image/scheduler/scheduler_config.json", {"max_shift": 1.15}, "base model's files",
         "scheduler/scheduler_config.json: max_shift is 1.15, published is 0.9"),
        ("Qwen/Qwen3-VL-8B-Instruct/preprocessor_config.json", {"patch_size": 14}, "encoder's files",
         "preprocessor_config.json: patch_size is 14, published is 16"),
        ("Qwen/Qwen3-VL-8B-Instruct/config.json", {"tie_word_embeddings": True}, "encoder's files",
         "config.json: tie_word_embeddings is True, published is False"),
    ],
)  # fmt: skip
def test_field_that_differs_is_named_with_both_values(clinic, name, fields, check, says):
    clinic.edit(name, **fields)
    checks, said = clinic.examine()
    assert checks[check]["state"] == "wrong" and says in checks[check]["detail"]
    assert "modal volume rm -r harald-hf-cache models--Qwen--" in said and "download_models" in said


def test_file_written_anew_by_another_version_of_the_library_is_no_difference(clinic):
    """transformers 5 writes rope_parameters where 4 wrote rope_scaling and rope_theta."""
    file = clinic.copies / ENCODER.repo / "config.json"
    raw = json.loads(file.read_text())
    raw["text_config"]["rope_parameters"] = {"rope_theta": 5_000_000, **raw["text_config"].pop("rope_scaling")}
    del raw["text_config"]["rope_theta"]
    raw["transformers_version"] = "5.23.0"
    file.write_text(json.dumps(raw))
    clinic.install()
    assert clinic.examine()[0]["encoder's files"]["state"] == "ok"


def test_other_rope_base_is_found_in_the_old_form_too(clinic):
    file = clinic.copies / ENCODER.repo / "config.json"
    raw = json.loads(file.read_text())
    raw["text_config"]["rope_theta"] = 10_000
    file.write_text(json.dumps(raw))
    clinic.install()
    assert "rope_theta is 10000, published is 5000000" in clinic.examine()[0]["encoder's files"]["detail"]


def rewrite(folder: Path, change) -> None:
    """Change the tensors of the last shard, not the index."""
    file = sorted(folder.glob("*.safetensors"))[-1]
    save_file(change(load_file(file)), file, {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: dict(list(t.items())[1:]), "tensors are not in the shard that the index names, first "),
        (lambda t: {n: x.half() for n, x in t.items()}, "bytes of tensors, the shards hold"),
        (lambda t: {n: x[:-1].contiguous() for n, x in t.items()}, "(count, shape), published is"),
        (lambda t: t | {"surplus.weight": torch.zeros(1)}, "1 kinds of tensors are unknown, first surplus.weight"),
    ],
    ids=["a tensor is gone", "another type", "another shape", "a tensor too many"],
)
def test_shards_that_do_not_keep_what_the_index_promises(clinic, change, says):
    rewrite(clinic.copies / BASE.repo / "transformer", change)
    clinic.install()
    found = clinic.examine()[0]["base model's files"]
    details = [found["detail"], *model_checks.unpublished(
        model_checks.PUBLISHED[BASE.repo], hub.snapshot(clinic.runtime.hf_cache, BASE)
    )]  # fmt: skip
    assert found["state"] == "wrong" and any(says in detail for detail in details)


def test_damaged_shard_is_told_by_the_first_check_and_the_rest_goes_on(clinic):
    file = sorted((clinic.copies / BASE.repo / "vae").glob("*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    clinic.install()
    checks, said = clinic.examine()
    assert checks["base model"]["state"] == "missing" and "is damaged: vae/" in said
    assert "modal run -m harald.modal_runner::download_models" in checks["base model"]["advice"]
    assert checks["encoder's files"]["state"] == "ok"


def test_tokenizer_with_moved_special_tokens(clinic, monkeypatch):
    monkeypatch.setattr(model_checks, "SPECIAL_TOKENS", {"<|im_start|>": 151_644})
    found = clinic.examine()[0]["tokens"]
    assert found["state"] == "wrong" and "<|im_start|> is id" in found["detail"]
    assert "published is 151644" in found["detail"]


def test_tokenizer_that_cuts_the_head_otherwise(clinic):
    (clinic.copies / BASE.repo / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    clinic.install()
    found = clinic.examine()[0]["tokens"]
    assert found["state"] == "wrong" and "tokens, the pipeline drops 34" in found["detail"]


def test_too_few_free_rows(clinic):
    clinic.config = dataclasses.replace(
        clinic.config, encoder=dataclasses.replace(clinic.config.encoder, groups=(("all", 200),))
    )
    found = clinic.examine()[0]["tokens"]
    assert found["detail"].endswith("Qwen/Qwen3-VL-8B-Instruct has 128 free vocabulary rows; 200 tokens are asked for")


def test_lora_is_compared_with_the_models_modules(clinic):
    cache = clinic.runtime.hf_cache
    name = "transformer_blocks.1.attn.to_q"
    for prefix, state in (("transformer.", "ok"), ("text_model.", "wrong")):
        tensors = {
            f"{prefix}{name}.lora_A.weight": torch.zeros(2, 64),
            f"{prefix}{name}.lora_B.weight": torch.zeros(64, 2),
        }
        save_file(tensors, cache / "comic.safetensors")
        clinic.config = dataclasses.replace(
            clinic.config, models=dataclasses.replace(clinic.config.models, lora=LoraRef("comic.safetensors"))
        )
        assert clinic.examine()[0]["LoRA"]["state"] == state


def test_unreadable_lora_does_not_hide_the_other_findings(clinic):
    clinic.edit("Qwen/Qwen-Image/scheduler/scheduler_config.json", max_shift=1.15)
    (clinic.runtime.hf_cache / "comic.safetensors").write_bytes(b"\x10")
    models = dataclasses.replace(clinic.config.models, lora=LoraRef("comic.safetensors"))
    clinic.config = dataclasses.replace(clinic.config, models=models)
    checks, said = clinic.examine()
    assert checks["LoRA"]["state"] == "wrong" and checks["LoRA"]["advice"] == "copy it into the cache again"
    assert "damaged file" in said and "max_shift" in said


def test_few_steps_are_looked_for_where_they_are_asked_for(clinic):
    assert clinic.examine()[0]["few steps"]["detail"].startswith("not needed")
    clinic.config = dataclasses.replace(
        clinic.config,
        models=dataclasses.replace(clinic.config.models, few_steps=FewSteps("someone/lightning")),
        generate=dataclasses.replace(clinic.config.generate, speed="lightning"),
    )
    found = clinic.examine()[0]["few steps"]
    assert found["state"] == "wrong" and "someone/lightning" in found["detail"]
    assert "download_models" in found["advice"]


@pytest.mark.parametrize(
    ("capability", "gib", "changes", "says"),
    [
        ((9, 0), 139.8, {}, ""),
        ((9, 0), 79.1, {}, "train.economy is meant for 141 GiB"),
        ((8, 0), 139.8, {"speed": "fast"}, "float8 needs 8.9"),
        ((9, 0), 139.8, {"speed": "fast"}, ""),
    ],
)
def test_accelerator_must_be_able_to_do_what_is_asked_for(monkeypatch, runtime, capability, gib, changes, says):
    full = config.full()
    wanted = dataclasses.replace(full, generate=dataclasses.replace(full.generate, **changes))
    for name, value in {
        "is_available": True, "get_device_name": "GPU", "get_device_capability": capability,
        "get_device_properties": SimpleNamespace(total_memory=gib * 2**30),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    state, detail, advice = model_checks.accelerator(runtime, wanted)
    assert (state == "wrong", bool(advice)) == (bool(says),) * 2 and says in detail
    if "meant" in says:
        overrides = advice.split("'")[1]
        assert resolve("full", overrides=overrides).train.economy == config.ECONOMIES[80]

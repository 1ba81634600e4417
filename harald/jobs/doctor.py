"""Cheap check of volumes, secret, models and data, with advice for what is missing."""

import shutil
import uuid

from harald import hub, runs
from harald.config import DATASETS, HF_TOKEN_VARIABLE, Config, ModelRef
from harald.errors import HaraldError
from harald.jobs import model_checks
from harald.runtime import Runtime


class Unhealthy(HaraldError):
    """Something that every other job needs is missing."""


def run(runtime: Runtime, config: Config, run_name: str) -> dict:
    """Raises Unhealthy, with all that is missing or wrong at once; the report is written before, if it can be."""
    writable = _output(runtime, config)[0] == "ok"
    folder = runs.open_run(runtime, "doctor", run_name, config) if writable else None
    checks = []
    for name, check in CHECKS.items():
        try:
            state, detail, advice = check(runtime, config)
        except HaraldError as error:
            detail, _, advice = str(error).partition("\n  fix: ")
            state = "wrong"
        checks.append({"check": name, "state": state, "detail": detail, "advice": advice})
    if folder:
        runs.write_json(folder / "doctor.json", checks)
        runtime.commit()
    if wrong := [c for c in checks if c["state"] != "ok"]:
        lines = [f"{c['check']}: {c['detail']}\n      {c['advice']}" for c in wrong]
        raise Unhealthy(
            "not ready:\n    " + "\n    ".join(lines), "follow the advice under each line, then run doctor again"
        )
    return {"checks": checks}


def _output(runtime: Runtime, config: Config) -> tuple[str, str, str]:
    probe = runtime.output / f".doctor-{uuid.uuid4().hex}"
    try:
        runs.write_text(probe, "ok")
        probe.unlink()
    except OSError as error:
        return "missing", f"{runtime.output} cannot be written: {error}", "check the output volume and its free space"
    return "ok", f"{runtime.output}, {shutil.disk_usage(runtime.output).free / 2**30:.0f} GiB free", ""


def _token(runtime: Runtime, config: Config) -> tuple[str, str, str]:
    refs = [ref for ref in (config.models.base, config.models.encoder, config.models.trained) if ref]
    if hub.hf_token():
        return "ok", f"{HF_TOKEN_VARIABLE} is set", ""
    if all(ref.recipe for ref in refs) and not config.models.lora.source:
        return "ok", f"{HF_TOKEN_VARIABLE} is not set; this preset downloads nothing", ""
    advice = f"modal secret create HF_SECRET {HF_TOKEN_VARIABLE}=hf_...  (locally: export {HF_TOKEN_VARIABLE}=hf_...)"
    return "missing", f"{HF_TOKEN_VARIABLE} is not set", advice


def _lora(runtime: Runtime, config: Config) -> tuple[str, str, str]:
    lora = config.models.lora
    if lora.source and not (runtime.hf_cache / lora.source).is_file():
        found = _in_cache(runtime, ModelRef(lora.source, lora.revision))
        if found[0] != "ok":
            return found
    return model_checks.lora(runtime, config)


def _in_cache(runtime: Runtime, ref: ModelRef) -> tuple[str, str, str]:
    if ref.recipe and not hub.is_cached(runtime.hf_cache, ref):
        return "ok", f"{ref.repo} is written at its first use", ""
    try:
        hub.snapshot(runtime.hf_cache, ref)
    except HaraldError as error:
        return "missing", str(error).splitlines()[0], "modal run -m harald.modal_runner::download_models"
    return "ok", f"{ref.repo} at {hub.revision(runtime.hf_cache, ref.repo, ref.revision)[:12]}", ""


def _datasets(runtime: Runtime, config: Config) -> tuple[str, str, str]:
    counts = {
        n: sum(1 for p in path.glob("seed_*")) if path.is_dir() else 0 for n, path in sorted(runtime.datasets.items())
    }
    if any(counts.values()):
        return "ok", ", ".join(f"dataset/{n}: {count} states" for n, count in counts.items()), ""
    for number, path in sorted(runtime.datasets.items()):
        if deeper := next((home.parent.name for home in sorted(path.glob("*/seed_*"))), ""):
            volume = DATASETS.get(number, "DATASET_VOLUME")
            mended = f"modal volume rm -r {volume} {deeper} && modal volume put {volume} {deeper}/ /"
            advice = f"{mended}   (with a / behind the folder; locally: move what is in it up)"
            return "wrong", f"the states lie in {path / deeper}, one folder too deep", advice
    places = ", ".join(map(str, runtime.datasets.values())) or runtime.root / "dataset"
    here = f"put the folders under {runtime.root}/dataset/1, or run demo_dataset"
    advice = f"modal volume put {DATASETS[1]} FOLDER/ /   (locally: {here})"
    return "missing", f"no seed_<number> folder in {places}", advice


CHECKS = {
    "output": _output,
    "token": _token,
    "base model": lambda runtime, config: _in_cache(runtime, config.models.base),
    "encoder": lambda runtime, config: _in_cache(runtime, config.models.encoder),
    "trained encoder": lambda runtime, config: (
        _in_cache(runtime, config.models.trained)
        if config.models.trained
        else ("ok", "none is named: jobs use a run of train", "")
    ),
    "base model's files": lambda runtime, config: model_checks.files(runtime, config.models.base),
    "encoder's files": lambda runtime, config: model_checks.files(runtime, config.models.encoder),
    "tokens": model_checks.tokens,
    "LoRA": _lora,
    "dataset": _datasets,
    "few steps": model_checks.few_steps,
    "accelerator": model_checks.accelerator,
}

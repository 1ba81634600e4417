"""Fill the HF cache, resolve revisions and record them."""

from harald import hub, runs
from harald.config import Config, ModelRef
from harald.jobs.loading import ensure
from harald.runtime import Runtime

# What the pipelines load: safetensors and configs, never pickles.
PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.jinja", "*.model"]


def run(runtime: Runtime, config: Config, run_name: str) -> dict:
    folder = runs.open_run(runtime, "download_models", run_name, config)
    refs = [ref for ref in (config.models.base, config.models.encoder, config.models.trained) if ref]
    lora = config.models.lora
    if lora.source and not (runtime.hf_cache / lora.source).is_file():
        refs.append(ModelRef(lora.source, lora.revision))
    few = config.models.few_steps if config.generate.speed == "lightning" else None
    if few and not (runtime.hf_cache / few.source).is_file():
        refs.append(ModelRef(few.source, few.revision))
    commits = {}
    for ref in refs:
        if ref.recipe:
            ensure(runtime.hf_cache, ref)
        elif not hub.is_cached(runtime.hf_cache, ref):
            wanted = [few.weight_name] if few and few.weight_name and ref.repo == few.source else PATTERNS
            hub.download(runtime.hf_cache, ref.repo, ref.revision, wanted)
        runtime.commit()
        hub.snapshot(runtime.hf_cache, ref)
        commits[ref.repo] = hub.revision(runtime.hf_cache, ref.repo, ref.revision)
    runs.write_json(folder / "revisions.json", commits)
    return {"revisions": commits, "cache": str(runtime.hf_cache)}

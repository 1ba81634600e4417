"""Doctor's checks of cached models, by their configurations and file headers: no weights are loaded."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from transformers import Qwen2_5_VLConfig, Qwen2Tokenizer, Qwen3VLConfig

from harald import hub
from harald.base.prompt_template import TEMPLATE_HEAD
from harald.config import ECONOMIES, HF_CACHE_VOLUME, Config, LoraRef, ModelRef
from harald.published.checkpoint import layout_problems, shard_problems
from harald.published.configs import differences
from harald.published.facts import PUBLISHED, SPECIAL_TOKENS, TEMPLATE_HEAD_TOKENS, Published
from harald.published.lora import misfits
from harald.runtime import Runtime

Finding = tuple[str, str, str]  # state, detail, advice
FLOAT8 = (8, 9)  # compute capability from which products in float8 exist
NOT_YET: Finding = ("ok", "nothing to look at before the models are complete in the cache", "")


def files(runtime: Runtime, ref: ModelRef) -> Finding:
    """Whether shards hold what their index promises, and configurations, names, shapes and sizes are the published."""
    if not hub.is_cached(runtime.hf_cache, ref):
        return NOT_YET
    folder = hub.snapshot(runtime.hf_cache, ref)
    problems = [
        f"{index.parent.name}: {problem}"
        for index in sorted(folder.rglob("*.safetensors.index.json"))
        for problem in shard_problems(index.parent)
    ]
    published = PUBLISHED.get(ref.repo)
    if published:
        problems += unpublished(published, folder)
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        return "wrong", f"{ref.repo}: {'; '.join(problems[:3])}{more}", fetch_again(runtime.hf_cache, ref)
    known = "as published" if published else "no published facts are recorded for it"
    return "ok", f"{ref.repo}: shards as their index says, {known}", ""


def unpublished(published: Published, folder: Path) -> list[str]:
    """Where a repository's copy is not what was published, in words."""
    problems = []
    for part in published.parts:
        place = f"{part.folder}/{part.config}".lstrip("/")
        problems += [f"{place}: {problem}" for problem in differences(published, part, folder)]
        if part.parameters:
            found = layout_problems(folder / part.folder, part, published.layout(part))
            problems += [f"{part.folder or 'weights'}: {problem}" for problem in found]
    return problems


def fetch_again(cache: Path, ref: ModelRef) -> str:
    """The command that replaces a repository's copy."""
    home = hub.home(cache, ref.repo)
    published = PUBLISHED.get(ref.repo)
    hint = f"; the facts are those of revision {published.commit}" if published and published.commit else ""
    return (
        f"modal volume rm -r {HF_CACHE_VOLUME} {home.name} && modal run -m harald.modal_runner::download_models   "
        f"(locally: rm -r {home} && python -m harald download_models){hint}"
    )


def tokens(runtime: Runtime, config: Config) -> Finding:
    """Whether the template's head has the length that the pipeline drops, and enough vocabulary rows are free."""
    base, encoder, cache = config.models.base, config.models.encoder, runtime.hf_cache
    if not (hub.is_cached(cache, base) and hub.is_cached(cache, encoder)):
        return NOT_YET
    ours = hub.load(Qwen2Tokenizer, cache, base, "tokenizer")
    theirs = hub.load(Qwen2Tokenizer, cache, encoder)
    head = len(ours(TEMPLATE_HEAD, add_special_tokens=False).input_ids)
    if head != TEMPLATE_HEAD_TOKENS:
        detail = f"{base.repo}: the template's head is {head} tokens, the pipeline drops {TEMPLATE_HEAD_TOKENS}"
        return "wrong", detail, fetch_again(cache, base)
    for ref, tokenizer in ((base, ours), (encoder, theirs)):
        if ref.repo in PUBLISHED and (moved := moved_tokens(tokenizer)):
            return "wrong", f"{ref.repo}: {', '.join(moved[:3])}", fetch_again(cache, ref)
    free = {
        base.repo: rows(hub.snapshot(cache, base) / "text_encoder", Qwen2_5_VLConfig) - len(ours),
        encoder.repo: rows(hub.snapshot(cache, encoder), Qwen3VLConfig) - len(theirs),
    }
    detail = ", ".join(f"{repo} has {count} free vocabulary rows" for repo, count in free.items())
    if min(free.values()) < config.encoder.tokens:
        return "wrong", f"{detail}; {config.encoder.tokens} tokens are asked for", "lower the sizes in encoder.groups"
    return "ok", f"the template's head is {head} tokens; {detail}", ""


def moved_tokens(tokenizer: Qwen2Tokenizer) -> list[str]:
    """Special tokens that have another id than the published, in words."""
    vocabulary = tokenizer.get_vocab()
    return [
        f"{token} is id {vocabulary[token]}, published is {published}"
        for token, published in SPECIAL_TOKENS.items()
        if vocabulary.get(token, published) != published
    ]


def rows(folder: Path, config_class: type[Qwen2_5_VLConfig] | type[Qwen3VLConfig]) -> int:
    """Rows of the text model's vocabulary."""
    return config_class.from_dict(json.loads((folder / "config.json").read_text())).get_text_config().vocab_size


def lora(runtime: Runtime, config: Config) -> Finding:
    """Whether the LoRA's tensors have a place in the transformer."""
    if not config.models.lora.source:
        return "ok", "not configured (models.lora.source)", ""
    return _fits(runtime, config, config.models.lora, "models.lora.source")


def few_steps(runtime: Runtime, config: Config) -> Finding:
    """The same of the LoRA that draws in few steps, where it is asked for."""
    few = config.models.few_steps
    if few is None or config.generate.speed != "lightning":
        return "ok", "not needed (generate.speed is not lightning)", ""
    wanted = LoraRef(few.source, few.weight_name, few.revision)
    return _fits(runtime, config, wanted, "models.few_steps.source")


def _fits(runtime: Runtime, config: Config, wanted: LoraRef, field: str) -> Finding:
    cache = runtime.hf_cache
    if not hub.is_cached(cache, config.models.base):
        return NOT_YET
    file = hub.lora_file(cache, wanted)
    described = json.loads((hub.snapshot(cache, config.models.base) / "transformer" / "config.json").read_text())
    with torch.device("meta"):
        transformer: Any = QwenImageTransformer2DModel.from_config(described)
    if problems := misfits(file, transformer):
        advice = f'pass --overrides \'{{"{field}": "<a LoRA for this base model>"}}\''
        return "wrong", f"{wanted.source} does not fit {config.models.base.repo}: {problems[0]}", advice
    return "ok", f"{wanted.source} fits {config.models.base.repo}", ""


def accelerator(runtime: Runtime, config: Config) -> Finding:
    """Whether the GPU can do what the configuration asks for, and is as large as its savings are meant for."""
    wants = {"generate.speed": config.generate.speed, "train.economy.frozen": config.train.economy.frozen}
    float8 = {name: value for name, value in wants.items() if value in ("fast", "float8", "float8_once")}
    if not torch.cuda.is_available():
        return "ok", f"none here ({torch.get_num_threads()} CPU threads); the GPU jobs get theirs from Modal", ""
    name, (major, minor) = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    detail = f"{name}, {gib:.0f} GiB, compute capability {major}.{minor}"
    if float8 and (major, minor) < FLOAT8:
        asked = ", ".join(f"{field} is {value!r}" for field, value in float8.items())
        return "wrong", f"{detail}: {asked}, and float8 needs {FLOAT8[0]}.{FLOAT8[1]}", "use a newer GPU or no float8"
    sizes = {size: economy for size, economy in ECONOMIES.items() if economy == config.train.economy}
    if config.preset == "full" and sizes and gib < 0.98 * min(sizes):
        fitting = [size for size in ECONOMIES if size * 0.98 <= gib]
        advice = "train on a larger GPU"
        if fitting:
            advice = f"""train with --overrides '{{"train.economy": "{max(fitting)}"}}'"""
        return "wrong", f"{detail}: train.economy is meant for {min(sizes)} GiB", advice
    return "ok", detail, ""

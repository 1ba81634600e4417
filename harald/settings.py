"""Flags -> a checked config. The checking is pydantic's; ours is only the wording of its errors."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from harald.config import ECONOMIES, PRESETS, Config, Evaluate, Train
from harald.errors import ConfigError, did_you_mean

_ADAPTER = TypeAdapter(Config)

# What may change between two starts of one training run without changing any of its bytes up to a given step.
_OPERATIONAL = {
    "train": ("steps", "checkpoint_every", "keep_checkpoints", "sample_every", "patience", "workers"),
    "prepare": ("pictures_per_shard", "containers"),
}

# Sections that can be given by the name of a set of fields. The economies are named after the GiB of a GPU.
_NAMED = {"train.economy": {str(gib): dataclasses.asdict(economy) for gib, economy in ECONOMIES.items()}}


def resolve(preset: str, seed: int = 0, overrides: str = "{}") -> Config:
    """Preset + seed + overrides (JSON, nested or with dotted keys, train.economy also by name) -> config.

    Raises ConfigError.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}", f"{did_you_mean(preset, PRESETS)}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"--seed is {seed}", "use an integer from 0 to 2^63 - 1")
    try:
        changes = json.loads(overrides or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"--overrides is not JSON ({error}): {overrides!r}", """write it like '{"train": {"steps": 100}}'"""
        ) from error
    if not isinstance(changes, dict):
        raise ConfigError(f"--overrides is a {type(changes).__name__}, not an object: {overrides!r}", "use {...}")
    tree = dataclasses.asdict(PRESETS[preset]())
    _merge(tree, {**changes, "seed": changes.get("seed", seed)}, path="")
    return from_json(json.dumps(tree))


def from_json(text: str) -> Config:
    """A config from its JSON, checked. Raises ConfigError that names the field and what it should be."""
    try:
        config = _ADAPTER.validate_json(text)
    except ValidationError as error:
        lines = [f"{_dotted(e['loc'])} = {json.dumps(e['input'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(
            "the configuration is not valid:\n    " + "\n    ".join(lines), "correct these fields"
        ) from error
    check(config)
    return config


def to_json(config: Config) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True)


def config_hash(config: Config) -> str:
    """Twelve hex digits over every field."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]


def identity_hash(config: Config) -> str:
    """Like config_hash, without the fields that a run may change when it goes on (its length, its housekeeping)."""
    tree: dict[str, Any] = dataclasses.asdict(config)
    tree.pop("serve")  # the page changes no training
    for section, names in _OPERATIONAL.items():
        for name in names:
            tree[section].pop(name)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def check(config: Config) -> None:
    """Ranges that types cannot say. Raises ConfigError."""
    encoder, train, data = config.encoder, config.train, config.data
    at_least_one = {
        "encoder.mix_layers": encoder.mix_layers,
        "encoder.max_pixels": encoder.max_pixels,
        "encoder.lora_rank": encoder.lora_rank,
        "prepare.pictures_per_shard": config.prepare.pictures_per_shard,
        "prepare.containers": config.prepare.containers,
        "train.steps": train.steps,
        "train.states_per_batch": train.states_per_batch,
        "train.targets_per_state": train.targets_per_state,
        "train.checkpoint_every": train.checkpoint_every,
        "train.keep_checkpoints": train.keep_checkpoints,
        "train.sample_every": train.sample_every,
        "poc.steps": config.poc.steps,
        "evaluate.inversion_steps": config.evaluate.inversion_steps,
        "poc.batch": config.poc.batch,
        "refine.batch": config.refine.batch,
        "poc.scenes": len(config.poc.scenes),
        "evaluate.states": config.evaluate.states,
        "evaluate.mean_states": config.evaluate.mean_states,
        "evaluate.batch": config.evaluate.batch,
        "evaluate.timesteps": len(config.evaluate.timesteps),
        **{f"serve.{name}": value for name, value in dataclasses.asdict(config.serve).items()},
        "encoder.groups": len(encoder.groups),
        **{f"encoder.groups ({name})": size for name, size in encoder.groups},
    }
    for name, value in at_least_one.items():
        if value < 1:
            raise ConfigError(f"{name} is {value}", "use 1 or more")
    if config.generate.steps < 2:
        raise ConfigError(
            f"generate.steps is {config.generate.steps}", "use 2 or more: the schedule stretches to its end"
        )
    _check_share("data.validation_share", data.validation_share)
    _check_share("data.held_out_share", data.held_out_share)
    _check_share("data.validation_share + data.held_out_share", data.validation_share + data.held_out_share)
    if data.max_states < 0:
        raise ConfigError(f"data.max_states is {data.max_states}", "use 0 (all) or a number of states")
    if config.refine.steps < 0:
        raise ConfigError(f"refine.steps is {config.refine.steps}", "use 0 (off) or more, such as 10")
    for name, value in {"data.image_size": data.image_size, "generate.size": config.generate.size}.items():
        if value < 16 or value % 16:
            raise ConfigError(f"{name} is {value}", "use a multiple of 16 (8 by the VAE, 2 by the patches)")
    for name, value in {
        "poc.learning_rate": config.poc.learning_rate,
        "refine.learning_rate": config.refine.learning_rate,
        "evaluate.inversion_rate": config.evaluate.inversion_rate,
        "train.clip_norm": train.clip_norm,
        "train.contrast_temperature": train.contrast_temperature,
        "train.part_weight": train.part_weight,
    }.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value}", "use a number above 0")
    names = encoder.names
    if len(set(names)) != len(names):
        raise ConfigError(f"encoder.groups repeats a name: {names}", "give every group its own name")
    if data.min_views < 2:
        raise ConfigError(f"data.min_views is {data.min_views}", "use 2 or more: one view to look at, one to draw")
    if not config.injection.class_word.strip():
        raise ConfigError("injection.class_word is empty", "use a word such as 'person'")
    _check_evaluate(config.evaluate)
    if train.parts not in (1 << n for n in range(16)) or train.states_per_batch % train.parts:
        raise ConfigError(
            f"train.parts is {train.parts} of train.states_per_batch {train.states_per_batch}",
            "use 1, 2, 4, 8, ..., and so many that the states can be shared equally",
        )
    _check_economy(config)
    _check_speed(config)
    _check_train(train, "train")
    _check_phases(train)


def _check_economy(config: Config) -> None:
    economy = config.train.economy
    _check_share("train.economy.recompute_base", economy.recompute_base)
    if economy.targets_at_once < 0:
        raise ConfigError(
            f"train.economy.targets_at_once is {economy.targets_at_once}", "use 0 (all) or a number of targets"
        )
    if config.deterministic and economy.compile == "fastest":
        raise ConfigError(
            "train.economy.compile is 'fastest' and deterministic is true: kernels are then chosen by the clock, and "
            "another process may choose others",
            "use 'same_twice', or set deterministic to false",
        )


def _check_speed(config: Config) -> None:
    generate = config.generate
    if not generate.cache_threshold > 0:
        raise ConfigError(f"generate.cache_threshold is {generate.cache_threshold}", "use a number above 0")
    if generate.speed == "exact" and not config.deterministic:
        raise ConfigError(
            "generate.speed is 'exact' and deterministic is false", "exact promises the same bytes: set it to true"
        )
    if generate.speed == "lightning":
        few = config.models.few_steps
        if few is None:
            raise ConfigError(
                "generate.speed is 'lightning' and models.few_steps is not set",
                "name a LoRA that was distilled for few steps of this base model, and its schedule",
            )
        if few.steps < 1 or not few.shift > 0:
            raise ConfigError(
                f"models.few_steps has steps {few.steps} and shift {few.shift}", "use 1 or more steps, a shift above 0"
            )
    if generate.offload == "blocks" and generate.speed != "eager":
        raise ConfigError(
            f"generate.offload is 'blocks' and generate.speed {generate.speed!r}: bringing the weights takes longer "
            "than computing",
            "use speed 'eager', or offload 'text'",
        )


def _check_evaluate(evaluate: Evaluate) -> None:
    for name in ("look_alikes", "hiding_states", "inversion_states"):
        if getattr(evaluate, name) < 0:
            raise ConfigError(f"evaluate.{name} is {getattr(evaluate, name)}", "use 0 or more")
    if evaluate.views < 4:
        raise ConfigError(f"evaluate.views is {evaluate.views}", "use 4 or more: two of each domain")
    if min(evaluate.references, default=0) < 1 or evaluate.main_references not in evaluate.references:
        raise ConfigError(
            f"evaluate.references is {list(evaluate.references)}, evaluate.main_references {evaluate.main_references}",
            "use numbers from 1 on, the main one among them",
        )


def _check_phases(train: Train) -> None:
    for number, phase in enumerate(train.phases):
        if phase.steps < 1:
            raise ConfigError(f"train.phases.{number}.steps is {phase.steps}", "use 1 or more")
        if min(phase.rates) < 0:
            raise ConfigError(f"train.phases.{number}.rates is {list(phase.rates)}", "use 0 or more")
    names = [phase.name for phase in train.phases]
    for name in train.stages:
        if names.count(name) != 1 or train.stages.count(name) > 1:
            raise ConfigError(
                f"train.stages is {list(train.stages)}, and {names.count(name)} of train.phases have the name {name!r}",
                f"{did_you_mean(name, names)}; name each stage once",
            )
    start = 0
    for phase in train.chosen:
        _check_train(train.at(start), f"train, phase {phase.name!r},")
        start += phase.steps


def _check_train(train: Train, where: str) -> None:
    """What may differ from phase to phase."""
    for name in (
        "cross_domain_share",
        "state_free_share",
        "drop_text",
        "drop_group",
        "whole_share",
        "drop_one",
        "override_share",
        "drop_references",
        "teacher_beside",
    ):
        _check_share(f"{where}.{name}", getattr(train, name))
    _check_share(f"{where}.uniform_timesteps", train.uniform_timesteps)
    if train.max_references < 1:
        raise ConfigError(f"{where}.max_references is {train.max_references}", "use 1 or more")
    if not train.learning_rate > 0:
        raise ConfigError(f"{where}.learning_rate is {train.learning_rate}", "use a number above 0")
    weights = {name: getattr(train, name) for name in ("flow_weight", "teacher_weight", "contrast_weight")}
    if train.override_share and not train.teacher_weight:
        raise ConfigError(
            f"{where}.override_share is {train.override_share} without a teacher",
            "set teacher_weight above 0: no picture shows what is asked for, only the base model can tell",
        )
    if min(weights.values()) < 0 or not train.flow_weight + train.teacher_weight:
        raise ConfigError(f"{where} has the weights {weights}", "use 0 or more, and flow or teacher above 0")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} is {value}", "use a share from 0 to 1")


def _merge(tree: dict[str, Any], changes: dict[str, Any], path: str) -> None:
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        where = f"{path}{head}"
        if head not in tree:
            raise ConfigError(f"unknown key {where!r} in --overrides", f"{did_you_mean(head, tree)}")
        nested = {rest: value} if rest else value
        if where in _NAMED and not isinstance(nested, dict):
            nested = _named(where, nested)
        if isinstance(tree[head], dict):
            if not isinstance(nested, dict):
                raise ConfigError(
                    f"{where} = {json.dumps(value)} in --overrides, but {where} is a section",
                    f"name one of its fields: {', '.join(sorted(tree[head]))}",
                )
            _merge(tree[head], nested, f"{where}.")
        elif isinstance(nested, dict) and isinstance(tree[head], list | tuple) and _are_sections(tree[head]):
            for place, change in nested.items():
                name = place.partition(".")[0]
                _merge({name: _entry(tree[head], name, where)}, {place: change}, f"{where}.")
        elif rest and tree[head] is not None:  # None: a section that is left out
            raise ConfigError(f"unknown key {path}{key!r} in --overrides", f"{where} is a value and has no fields")
        else:
            tree[head] = nested


def _are_sections(entries: Sequence[Any]) -> bool:
    return all(isinstance(entry, dict) for entry in entries)


def _entry(entries: Sequence[dict[str, Any]], place: str, where: str) -> dict[str, Any]:
    """The entry of that number, or of that `name`, in which - and _ may stand for a space.

    Raises ConfigError if there is none, or more than one.
    """
    known = [*map(str, range(len(entries))), *(str(entry.get("name", "")) for entry in entries)]
    found = {n % len(entries) for n, name in enumerate(known) if _spaced(name) == _spaced(place)}
    if len(found) == 1:
        return entries[found.pop()]
    if found:
        raise ConfigError(f"{where} has {len(found)} entries {place!r}", f"use a number: {sorted(found)}")
    listed = ", ".join(f"{n} {entry.get('name', '')!r}" for n, entry in enumerate(entries))
    raise ConfigError(
        f"unknown entry {f'{where}.{place}'!r} in --overrides", f"known: {listed}" if listed else f"{where} is empty"
    )


def _spaced(name: str) -> str:
    return re.sub("[-_]", " ", name)


def _named(section: str, name: Any) -> dict[str, Any]:
    """The fields of a section that has a name. Raises ConfigError."""
    known = _NAMED[section]
    if str(name) not in known:
        raise ConfigError(
            f"{section} = {json.dumps(name)} in --overrides is neither an object nor the name of a set",
            f"use one of {', '.join(known)}",
        )
    return known[str(name)]


def _dotted(location: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in location)

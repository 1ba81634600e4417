"""Persons made from persons: without some of their groups, as a prompt needs them, or mixed."""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence

import torch

from harald.config import VECTORS
from harald.data.named import named
from harald.errors import ConfigError, PersonFileError, did_you_mean
from harald.injection.person_file import to_bytes
from harald.injection.prompt import Prompt
from harald.records import PersonTokens


def without_groups(person: PersonTokens, dropped: Collection[str]) -> PersonTokens:
    """The slots of the other groups, in their order. Raises ConfigError for an unknown group, or if none is left."""
    known = [name for name, _ in person.groups]
    for name in dropped:
        if name not in known:
            raise ConfigError(f"the person has no group {name!r}", did_you_mean(name, known))
    groups = tuple(group for group in person.groups if group[0] not in dropped)
    if not groups:
        raise ConfigError("no group of the person is left", f"keep one of: {', '.join(known)}")
    slots = dict(zip(known, person.tokens.split([size for _, size in person.groups]), strict=True))
    return dataclasses.replace(person, tokens=torch.cat([slots[name] for name, _ in groups]), groups=groups)


def for_prompt(prompt: Prompt, persons: Mapping[str, PersonTokens]) -> dict[str, PersonTokens]:
    """The persons that the prompt names, each without the groups that make room for its words."""
    return {name: without_groups(persons[name], groups) for name, groups in making_room(prompt, persons).items()}


def making_room(prompt: Prompt, persons: Mapping[str, PersonTokens]) -> dict[str, list[str]]:
    """Groups of each person in the prompt that carry what its words say of them, and nothing else: `glasses` in
    "<person> with round glasses, on a beach", where there is such a group. Not the last ones that a person has.
    """
    said: dict[str, set[str]] = {name: set() for name in prompt.names}
    for name, behind in zip(prompt.names, prompt.texts[1:], strict=True):
        said[name] |= named(behind)
    known = {name: {group for group, _ in persons[name].groups} for name in said}
    return {name: sorted(kinds & known[name]) if known[name] - kinds else [] for name, kinds in said.items()}


def mixed(parts: Sequence[tuple[PersonTokens, float]]) -> PersonTokens:
    """The weighted mean of persons, slot by slot; each slot is then as long as its parts are in the weighted mean.

    A mean of vectors that point apart is shorter than they are, and at the input point length counts. weights: 0 or
    more, one of them above 0; only their proportions matter. The notes of the mix name each part by its digest.
    Raises ConfigError, or PersonFileError if the persons come from different encoders.
    """
    persons, total = [person for person, _ in parts], sum(weight for _, weight in parts)
    if min(weight for _, weight in parts) < 0 or not 0 < total < float("inf"):
        raise ConfigError(
            f"the weights of a mix are {[weight for _, weight in parts]}", "use numbers from 0 on, one of them above 0"
        )
    kinds = sorted({f"{p.encoder or 'unknown'} ({p.base}, {p.point} point, groups {p.groups})" for p in persons})
    if len(kinds) > 1:
        raise PersonFileError(
            f"person files of different encoders cannot be mixed: {'; '.join(kinds)}", "use files of one encoder"
        )
    if len(parts) == 1:
        return persons[0]
    shares = torch.tensor([weight / total for _, weight in parts])[:, None, None]
    vectors = [person.tokens.unflatten(-1, (VECTORS[person.point], -1)).transpose(0, 1) for person in persons]
    tokens = torch.stack(vectors, 1)  # [vectors of a slot, persons, K, D]
    mean, length = (shares * tokens).sum(1), (shares * tokens.norm(dim=-1, keepdim=True)).sum(1)
    return dataclasses.replace(
        persons[0],
        tokens=torch.cat([*(torch.nn.functional.normalize(mean, dim=-1) * length)], -1),
        references=sum(person.references for person in persons),
        notes={"mixed": ", ".join(f"{weight / total:.4g} of {digest(person)}" for person, weight in parts)},
    )


def digest(person: PersonTokens) -> str:
    """Of the person file's bytes: the first twelve digits that sha256sum shows."""
    return hashlib.sha256(to_bytes(person)).hexdigest()[:12]

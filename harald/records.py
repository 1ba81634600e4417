"""The nouns that travel between the stages."""

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, order=True)
class View:
    """One picture of a state. Width and height in pixels, as the file's header says."""

    domain: str
    number: int
    image: Path
    prompt: str
    person_prompt: str  # the prompt with <person> in place of the person's description: silent about the state
    width: int
    height: int

    @property
    def name(self) -> str:
        return self.image.stem


@dataclass(frozen=True)
class State:
    """One person as they look at one time. `state_id` is the folder's name, unique over all base folders.

    person: the description of the person that its prompts share, empty if there is none;
    separation: how it was found (see data/prompts.py); identity: who it is, the same for all states of one person,
    empty where the data set does not say (see data/people.py).
    """

    state_id: str
    base: int
    views: tuple[View, ...]
    person: str = ""
    separation: str = ""
    identity: str = ""

    @functools.cached_property
    def domains(self) -> tuple[str, ...]:
        return tuple(sorted({view.domain for view in self.views}))

    def in_domain(self, domain: str) -> tuple[View, ...]:
        return tuple(view for view in self.views if view.domain == domain)


@dataclass(frozen=True)
class Pair:
    """What one encoder pass sees (references) and what the base model draws from it (targets); never the same view.

    drawn: the state of the targets; another one than `state` only where tokens are to carry the identity alone.
    """

    state: State
    references: tuple[View, ...]
    targets: tuple[View, ...]
    drawn: State

    def __post_init__(self) -> None:
        assert self.references, "a pair needs a reference"
        assert self.targets, "a pair needs a target"
        assert not set(self.references) & set(self.targets), "a target is never among the references"


@dataclass(frozen=True)
class PersonTokens:
    """A person in the base model's own language.

    tokens: [K, D] float32, or [K, 2 D] where they go to both points; slot order matters (text RoPE); groups: (name,
    number of slots), in slot order; point: where they are injected; base: repository of the base model they were made
    for.
    """

    tokens: "Tensor"
    groups: tuple[tuple[str, int], ...]
    point: str
    base: str
    references: int = 0
    encoder: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slots = sum(size for _, size in self.groups)
        assert self.tokens.ndim == 2 and self.tokens.shape[0] == slots, (
            f"tokens of shape {tuple(self.tokens.shape)} do not fill {slots} slots of {self.groups}"
        )

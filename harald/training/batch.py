"""What one training step sees: a pure function of (config, states, step), whatever worker makes it."""

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from harald.config import Config, Encoder
from harald.data.description import Wish, carriers, granted, wishes, without
from harald.data.images import load_picture, target_tensor, within_pixels
from harald.data.latents import LatentCache
from harald.data.pairs import draw_domain, draw_pair, draw_states
from harald.data.parts import patch_weights
from harald.data.people import PEOPLE, siblings
from harald.determinism import generator, rng
from harald.encoder.chat import Chat, ChatBuilder
from harald.errors import DatasetError
from harald.injection.layout import EXACT, Layout, Room, Tokenize, lay_out, piece
from harald.injection.prompt import ANY, Prompt, parse
from harald.records import Pair, State, View
from harald.training.flow import draw_times

DUMMY_PROMPT = "<person>"
MULTIPLE = 32  # of tokens in a prompt, where steps are recorded: few sizes, few recordings


@dataclass(frozen=True)
class Target:
    """One picture to draw.

    owner: index of its state in the batch; pixels: [3, h, w], or latents: [s, c] from the cache; t: [1]; noise: [s, c];
    slots: the person slots that are kept (a group may be dropped, all of them too); described: the prompt with words
    instead of tokens, of the kept groups alone, empty where no teacher is asked; shown: whether the tokens are to make
    the picture itself, which also shows what dropped groups would have carried; weights: [s] of the patches in its
    losses, of mean 1, None where all weigh the same.
    """

    owner: int
    prompt: str
    pixels: Tensor | None
    latents: Tensor | None
    t: Tensor
    noise: Tensor
    slots: list[int]
    described: str = ""
    shown: bool = True
    weights: Tensor | None = None


@dataclass(frozen=True)
class Targets:
    """n pictures to draw, as few large tensors. pixels: [n, 3, h, w] or latents: [n, s, c]; t: [n]; noise: [n, s, c];
    layout: of their prompts, with rows of the batch's flattened tokens [states * K, d]; shown: [n] 1 or 0;
    described: layout of the prompts with words instead of tokens, None where no teacher is asked. of: [2] how many
    targets the whole step has, of which these may be a part, and how many of them are shown. weights: [n, s] or None.
    """

    pixels: Tensor | None
    latents: Tensor | None
    t: Tensor
    noise: Tensor
    layout: Layout
    shown: Tensor
    described: Layout | None
    of: Tensor
    weights: Tensor | None

    def __len__(self) -> int:
        return len(self.t)

    def piece(self, first: int, last: int) -> "Targets":
        """Targets first to last - 1, or fewer if there are no more."""
        last = min(last, len(self))
        rows = {name: getattr(self, name) for name in ("pixels", "latents", "t", "noise", "shown", "weights")}
        return replace(
            self,
            **{name: None if tensor is None else tensor[first:last] for name, tensor in rows.items()},
            layout=piece(self.layout, first, last),
            described=None if self.described is None else piece(self.described, first, last),
        )


def collate(
    tokenize: Tokenize, targets: Sequence[Target], slots: int, config: Config, of: tuple[int, int] | None = None
) -> Targets:
    """slots: K, rows of tokens for each state; of: see Targets, by default these targets are all.

    Raises PromptError for a prompt whose placeholder is glued to a word.
    """
    prompts = [
        (parse(target.prompt), {ANY: [target.owner * slots + slot for slot in target.slots]} if target.slots else {})
        for target in targets
    ]
    room, silent = (Room(MULTIPLE, slots), Room(MULTIPLE)) if config.train.recorded else (EXACT, EXACT)
    said = [target.described for target in targets]
    words = [(Prompt((text,), ()), {}) for text in said]
    return Targets(
        pixels=_stacked([target.pixels for target in targets]),
        latents=_stacked([target.latents for target in targets]),
        t=torch.cat([target.t for target in targets]),
        noise=torch.stack([target.noise for target in targets]),
        layout=lay_out(tokenize, prompts, config.injection.point, config.injection.class_word, room),
        shown=torch.tensor([float(target.shown) for target in targets]),
        described=lay_out(tokenize, words, "output", config.injection.class_word, silent) if any(said) else None,
        of=torch.tensor(of or (len(targets), sum(target.shown for target in targets)), dtype=torch.float32),
        weights=_stacked([target.weights for target in targets]),
    )


def _stacked(tensors: list[Tensor | None]) -> Tensor | None:
    there = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(there) if there else None


@dataclass(frozen=True)
class Batch:
    """references, contrast: what the encoder's ChatBuilder makes of each state's pictures; contrast: disjoint
    references of the same states, empty if contrast is off or impossible. parts: how many of its kind make the step.
    """

    step: int
    domain: str
    parts: int
    pairs: tuple[Pair, ...]
    references: list[tuple[list[int], Chat]]
    contrast: list[tuple[list[int], Chat]]
    targets: Targets

    def pin_memory(self) -> "Batch":
        """Where a GPU can fetch it while the host goes on. The data loader calls this in a thread of its own."""
        return each_tensor(self, Tensor.pin_memory)

    def to(self, device: torch.device) -> "Batch":
        """The same on the device. Nobody waits, if it is pinned."""
        return each_tensor(self, lambda tensor: tensor.to(device, non_blocking=True))


def each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A part of a batch with other tensors; what the host itself reads of a chat stays."""
    match value:
        case Tensor():
            return change(value)
        case Batch() | Targets() | Layout():
            parts = {field.name: each_tensor(getattr(value, field.name), change) for field in fields(value)}
            return replace(value, **parts)
        case Chat():
            return replace(value, patches=each_tensor(value.patches, change))
        case list() | tuple():
            return type(value)(each_tensor(part, change) for part in value)
    return value


@dataclass(frozen=True)
class Batches(Dataset):
    """Step -> Batch. shape: (s, c) of packed latents; mu: time shift of that length."""

    config: Config
    states: list[State]
    shape: tuple[int, int]
    mu: float
    cache: LatentCache | None
    chats: ChatBuilder
    tokenize: Tokenize

    def __len__(self) -> int:
        return 2**31  # steps are drawn on demand, training decides when to stop

    def __getitem__(self, index: int) -> Batch:
        return self.part(index, 0, 1)

    def part(self, step: int, number: int, parts: int) -> Batch:
        """One of the equal parts of a step's states: what is drawn for a state does not depend on the parts."""
        config, train = self.config, self.config.train.at(step)
        domain = draw_domain(config.seed, step, self.states)
        states = draw_states(config.seed, step, train.states_per_batch, self._candidates(domain), train.twins_together)
        whole = tuple(self._pair(step, slot, state, domain) for slot, state in enumerate(states))
        first, size = number * len(whole) // parts, len(whole) // parts
        pairs = whole[first : first + size]
        of = self._of(step, whole) if parts > 1 else None
        return Batch(
            step=step,
            domain=domain,
            parts=parts,
            pairs=pairs,
            references=self.chats.build([self._pictures(pair.references) for pair in pairs]),
            contrast=self.chats.build(self._contrast(pairs) if train.contrast_weight else []),
            targets=collate(self.tokenize, self.targets(step, pairs, first), config.encoder.tokens, config, of),
        )

    def _of(self, step: int, pairs: Sequence[Pair]) -> tuple[int, int]:
        """Of a whole step, see Targets."""
        said = [self._say(step, slot, pair.drawn, view) for slot, pair in enumerate(pairs) for view in pair.targets]
        return len(said), sum(one.shown for one in said)

    def _candidates(self, domain: str) -> list[State]:
        if self.config.train.targets == "same_state":
            return [state for state in self.states if domain in state.domains]
        found = [state for state in self.states if self._looks(state, domain)]
        if not found:
            raise DatasetError(
                f"of {len(self.states)} states no two with {domain} views are one person",
                f"say who is who in {PEOPLE} of the base folders, or set train.targets to same_state",
            )
        return found

    def _looks(self, state: State, domain: str) -> list[State]:
        """Other states of the same person that have views of the domain."""
        return [other for other in self._siblings.get(state.state_id, ()) if domain in other.domains]

    @functools.cached_property
    def _siblings(self) -> dict[str, list[State]]:
        return siblings(self.states)

    def _pair(self, step: int, slot: int, state: State, domain: str) -> Pair:
        seed, train, drawn = self.config.seed, self.config.train.at(step), None
        if train.targets == "other_state":
            drawn = rng(seed, "look", step, slot).choice(self._looks(state, domain))
        return draw_pair(seed, step, slot, state, train, domain, drawn)

    def targets(self, step: int, pairs: Sequence[Pair], first: int = 0) -> list[Target]:
        """first: number of the first pair within the step."""
        return [
            self._target(step, first + place, place, pair.drawn, view)
            for place, pair in enumerate(pairs)
            for view in pair.targets
        ]

    def _pictures(self, views: tuple[View, ...]) -> list[Image.Image]:
        return [within_pixels(load_picture(view.image), self.config.encoder.max_pixels) for view in views]

    def _contrast(self, pairs: tuple[Pair, ...]) -> list[list[Image.Image]]:
        """As many unseen views of each state as it has references; empty unless every state has one."""
        unseen = [[v for v in pair.state.views if v not in pair.references and v not in pair.targets] for pair in pairs]
        if not all(unseen):
            return []
        return [self._pictures(tuple(views[: len(pair.references)])) for views, pair in zip(unseen, pairs, strict=True)]

    def _target(self, step: int, slot: int, owner: int, state: State, view: View) -> Target:
        train, said = self.config.train.at(step), self._say(step, slot, state, view)
        draws = generator(self.config.seed, "flow", step, f"{slot}/{view.name}")
        return Target(
            owner=owner,
            prompt=said.prompt,
            pixels=None if self.cache else target_tensor(load_picture(view.image), self.config.data.image_size),
            latents=self.cache.get(view.image) if self.cache else None,
            t=draw_times(draws, train.uniform_timesteps, self.mu),
            noise=torch.randn(self.shape, generator=draws),
            slots=slots_of(said.kept, self.config.encoder),
            described=said.described,
            shown=said.shown,
            weights=None if train.part_weight == 1 else patch_weights(view, self.shape[0], train.part_weight),
        )

    def _say(self, step: int, slot: int, state: State, view: View) -> "Said":
        name = f"{slot}/{view.name}"
        wish = self._wish(step, name, state)
        return _granted(state, view, wish, self.config) if wish else self._said(step, name, state, view)

    def _said(self, step: int, name: str, state: State, view: View) -> "Said":
        train, choices = self.config.train.at(step), rng(self.config.seed, "prompt", step, name)
        prompt = view.person_prompt if choices.random() < train.state_free_share else with_description(view)
        if choices.random() < train.drop_text:
            prompt = DUMMY_PROMPT
        kept = keep_groups(self.config, step, name, state.person)
        whole, silent = len(kept) == len(self.config.encoder.names), prompt != with_description(view)
        return Said(
            prompt=prompt,
            kept=kept,
            described=self._described(prompt, state, view, kept) if train.teacher_weight else "",
            shown=whole or not (train.teacher_weight and silent and state.person),
        )

    def _wish(self, step: int, name: str, state: State) -> Wish | None:
        """What some other state has and this one has not, for a share of the targets."""
        choices = rng(self.config.seed, "wish", step, name)
        if choices.random() >= self.config.train.at(step).override_share or not state.person:
            return None
        own = wishes(state.person)
        able = [wish for wish in wishes(choices.choice(self.states).person) if wish not in own]
        return choices.choice(able) if able else None

    def _described(self, prompt: str, state: State, view: View, kept: Collection[str]) -> str:
        """The prompt with words in the place of the tokens: what the kept groups say about the state."""
        if prompt == with_description(view) and "<person" not in view.prompt:
            return view.prompt
        names, word = self.config.encoder.names, self.config.injection.class_word
        dropped = set(names) - set(kept)
        return parse(prompt).with_word(without(state.person, dropped, word, names) if state.person else word)


@dataclass(frozen=True)
class Parts(Dataset):
    """Step -> those parts of its batch that one process computes."""

    batches: Batches
    numbers: range
    parts: int

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> list[Batch]:
        return [self.batches.part(index, number, self.parts) for number in self.numbers]


@dataclass(frozen=True)
class Said:
    """What stands in a target's prompt, and what it teaches; see Target."""

    prompt: str
    kept: Collection[str]
    described: str
    shown: bool


def _granted(state: State, view: View, wish: Wish, config: Config) -> Said:
    """The wish beside the tokens: the words must win. Only the base model knows how that looks. A group that carries
    what is wished for and nothing else makes room, as it does in drawing (see generation.persons.for_prompt).
    """
    return Said(
        prompt=view.person_prompt.replace(DUMMY_PROMPT, f"{DUMMY_PROMPT} {wish.said}", 1),
        kept=[name for name in config.encoder.names if name != wish.kind] or config.encoder.names,
        described=parse(view.person_prompt).with_word(granted(state.person, wish)),
        shown=False,
    )


def with_description(view: View) -> str:
    """The full prompt, still with a place for the tokens: <person> before what the user wrote."""
    return view.prompt if "<person" in view.prompt else f"{DUMMY_PROMPT}, {view.prompt}"


def keep_groups(config: Config, step: int, name: str, person: str = "") -> tuple[str, ...]:
    """Groups that are not dropped: what makes switches work later. person: the description of the state."""
    choices, train = rng(config.seed, "groups", step, name), config.train.at(step)
    if choices.random() < train.drop_references:
        return ()
    if train.whole_share and choices.random() < train.whole_share:
        return config.encoder.names
    if train.drop_one and choices.random() < train.drop_one:
        spoken_of = carriers(person, config.encoder.names) if person else []
        gone = choices.choice(spoken_of or config.encoder.names)
        return tuple(name for name in config.encoder.names if name != gone) or config.encoder.names
    kept = tuple(name for name in config.encoder.names if choices.random() >= train.drop_group)
    return kept or config.encoder.names


def slots_of(kept: Collection[str], encoder: Encoder) -> list[int]:
    """
    >>> slots_of(["face", "worn"], Encoder(groups=(("face", 2), ("hair", 3), ("worn", 1))))
    [0, 1, 5]
    """
    slots, start = [], 0
    for group, size in encoder.groups:
        slots += range(start, start + size) if group in kept else []
        start += size
    return slots

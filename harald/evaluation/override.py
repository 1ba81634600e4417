"""An explicit prompt must win over the tokens: what a state does not wear is asked for in words."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch

from harald.data.prompts import PLACEHOLDER
from harald.determinism import rng
from harald.evaluation.accuracy import Score
from harald.evaluation.paired import mean
from harald.evaluation.panel import NONE, Cell, Panel, Truth, target
from harald.evaluation.seen import Seen

# How the persons' prompts say a class; {} stands for one of COLOURS.
WORDS: dict[str, dict[str, str]] = {
    "glasses": {
        "round": "with round {} glasses",
        "square": "with square {} glasses",
        "sunglasses": "with {} sunglasses",
    },
    "beard": {
        "stubble": "with stubble",
        "moustache": "with a moustache",
        "goatee": "with a goatee",
        "full": "with a full beard",
    },
    "earrings": {
        "studs": "with {} stud earrings",
        "hoops": "with {} hoop earrings",
        "drops": "with {} drop earrings",
    },
    "necklace": {"chain": "with a {} chain", "pearls": "with a pearl necklace"},
    "headwear": {
        "beanie": "wearing a {} beanie",
        "cap": "wearing a {} cap",
        "hat": "wearing a {} hat",
        "headscarf": "wearing a {} headscarf",
        "headband": "wearing a {} headband",
    },
    "makeup": {"made up": "with {} lipstick and violet eye shadow"},
    "hair": {
        "bald": "with a bald head",
        "cropped": "with short {} hair",
        "curly": "with curly {} hair",
        "afro": "with a {} afro",
        "mohawk": "with a {} mohawk",
        "bob": "with a {} bob",
        "long": "with long straight {} hair",
        "wavy": "with long wavy {} hair",
        "bun": "with {} hair in a bun",
        "pigtails": "with {} hair in pigtails",
    },
}
HAIR_COLOURS = ("black", "brown", "ginger", "blonde", "grey")
COLOURS: dict[str, Sequence[str]] = {
    "glasses": ("black", "brown", "red", "blue", "white"),
    "studs": ("gold", "silver"),
    "hoops": ("gold", "silver"),
    "drops": ("ruby", "emerald", "sapphire"),
    "necklace": ("gold", "silver"),
    "headwear": ("red", "yellow", "green", "blue", "white", "black"),
    "makeup": ("red", "pink", "plum"),
    "hair": HAIR_COLOURS,
}


@dataclass(frozen=True)
class Override:
    """said: the wish in words; text: the target's silent prompt with it; wanted: number of the class."""

    attribute: str
    wanted: int
    said: str
    text: str


def override(panel: Panel, cell: Cell, seed: int) -> Override | None:
    """One wish for a cell's target: another class of something that the view shows. None if there is nothing to ask.

    Beards are asked of those who have one, hair colours of those who have hair.
    """
    state, view = panel.states[cell.state], target(panel, cell)
    choices = rng(seed, "evaluate", "override", state.state_id, view.name)
    labels = panel.labels[cell.state][cell.target].tolist()
    own = {n: c[label] for (n, c), label in zip(panel.attributes.items(), labels, strict=True) if label >= 0}
    wishes = {name: [c for c in panel.attributes[name] if c in _askable(name, own) and c != own[name]] for name in own}
    able = [name for name, classes in wishes.items() if classes]
    if not able:
        return None
    name = choices.choice(able)
    wanted = choices.choice(wishes[name])
    said = _said(name, wanted, own, choices)
    text = view.person_prompt.replace(PLACEHOLDER, f"{PLACEHOLDER} {said}", 1)
    return Override(name, list(panel.attributes[name]).index(wanted), said, text)


def _askable(name: str, own: Mapping[str, str]) -> Collection[str]:
    """Classes that can be asked of somebody of these classes."""
    if name == "beard" and own["beard"] == NONE:
        return ()
    if name == "hair_colour":
        return HAIR_COLOURS if own.get("hair", "bald") != "bald" else ()
    return WORDS.get(name, ())


def _said(name: str, wanted: str, own: Mapping[str, str], choices: Random) -> str:
    """Hair keeps its own colour when another style is asked for, and its style when another colour is."""
    if name == "hair_colour":
        return WORDS["hair"][own["hair"]].format(wanted)
    colour = choices.choice(COLOURS.get(wanted, COLOURS.get(name, ("",))))
    return WORDS[name][wanted].format(own.get("hair_colour", colour) if name == "hair" else colour)


def override_rate(seen: Seen, wishes: Sequence[Override], truth: Truth, seed: int = 0) -> Score:
    """Share of the wishes that the judge finds drawn. One row of each for a wish."""
    columns = [list(truth.attributes).index(wish.attribute) for wish in wishes]
    wanted = torch.tensor([wish.wanted for wish in wishes])
    said = seen.said[torch.arange(len(wishes)), torch.tensor(columns, dtype=torch.long)]
    return mean((said == wanted).double(), truth.people, seed)

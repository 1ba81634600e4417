"""The attributes that the truth knows of every picture, their classes, and when a part can be seen."""

from collections.abc import Callable

import numpy as np

from harald.proving_ground.persons.head import Part
from harald.proving_ground.persons.look import (
    BEARDS,
    EARRINGS,
    GLASSES,
    HAIR_COLOURS,
    HAIR_STYLES,
    HEADWEAR,
    NECKLACES,
    Look,
)
from harald.proving_ground.persons.view import DOMAINS, EXPRESSIONS, POSES, SCENES, View

STATE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hair": HAIR_STYLES,
    "hair_colour": tuple(HAIR_COLOURS),
    "beard": BEARDS,
    "glasses": GLASSES,
    "earrings": EARRINGS,
    "necklace": NECKLACES,
    "headwear": HEADWEAR,
    "makeup": ("none", "made up"),
}
VIEW_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "scene": tuple(SCENES),
    "expression": tuple(EXPRESSIONS),
    "pose": tuple(POSES),
    "domain": DOMAINS,
}
ATTRIBUTES = {**STATE_ATTRIBUTES, **VIEW_ATTRIBUTES}
HIDDEN = -1  # the label of a part that cannot be seen

HANGS_BELOW_HEADWEAR = ("bob", "long", "wavy", "pigtails")


def classes(look: Look, view: View) -> dict[str, str]:
    """Attribute -> class, seen or not."""
    return {
        "hair": look.hair,
        "hair_colour": look.hair_colour,
        "beard": look.beard,
        "glasses": look.glasses,
        "earrings": look.earrings,
        "necklace": look.necklace,
        "headwear": look.headwear,
        "makeup": "made up" if look.lipstick else "none",
        "scene": view.scene,
        "expression": view.expression,
        "pose": view.pose,
        "domain": view.domain,
    }


def visible(look: Look, pixels: dict[Part, float]) -> dict[str, bool]:
    """Attribute -> can it be seen? pixels: how many of a picture of 128 x 128 show each part.

    What somebody does not wear is seen where its place is seen: no earrings needs an ear, no necklace a neck.
    """
    covered = look.headwear not in ("none", "headband")
    hair = pixels[Part.HAIR] + pixels[Part.HAIR_SHAPE]
    mouth = pixels[Part.LIPS] + pixels[Part.BEARD] + pixels[Part.MOUTH] + pixels[Part.TEETH]
    match look.hair:
        case "bald":
            style = not covered
        case "bun" | "mohawk":
            style = not covered and pixels[Part.HAIR_SHAPE] >= 25
        case "pigtails":
            style = look.headwear != "headscarf" and pixels[Part.HAIR_SHAPE] >= 60
        case hanging if hanging in HANGS_BELOW_HEADWEAR:
            style = look.headwear != "headscarf" and hair >= 120
        case _:
            style = not covered and hair >= 60
    return {
        "hair": style,
        "hair_colour": look.hair != "bald" and hair >= 60,
        "beard": mouth >= 12 if look.beard == "none" else pixels[Part.BEARD] >= 20,
        "glasses": look.glasses == "none" or pixels[Part.FRAME] + pixels[Part.LENS] >= 25,
        "earrings": _earrings_seen(look, pixels),
        "necklace": _necklace_seen(look, pixels),
        "headwear": look.headwear == "none" or pixels[Part.HEADWEAR] >= 40,
        "makeup": pixels[Part.LIPS] >= 12,
        "scene": pixels[Part.BACKGROUND] >= 1600,
        "expression": look.glasses != "sunglasses" and mouth >= 12,
        "pose": True,
        "domain": True,
    }


# Attribute -> looks of which some views often show it and others hide it: cropped hair under headwear is a few pixels,
# a pendant hangs at the picture's edge. What else there is of a state is hidden in all its views or in none, as a rule.
SOMETIMES_HIDDEN: dict[str, Callable[[Look], bool]] = {
    "hair_colour": lambda look: look.hair == "cropped" and look.headwear in ("cap", "beanie", "hat"),
    "necklace": lambda look: look.necklace == "pendant",
}


def _earrings_seen(look: Look, pixels: dict[Part, float]) -> bool:
    if look.earrings == "none":
        return pixels[Part.EAR] >= 25
    return pixels[Part.EARRING] + pixels[Part.EARRING_GEM] >= 12


def _necklace_seen(look: Look, pixels: dict[Part, float]) -> bool:
    if look.necklace == "none":
        return pixels[Part.NECK] >= 80
    if look.necklace == "chain":
        return pixels[Part.NECKLACE] >= 20
    return pixels[Part.NECKLACE_GEM] >= 16


def labels(look: Look, view: View, pixels: dict[Part, float]) -> np.ndarray:
    """int8 [A] in the order of ATTRIBUTES: the class, or HIDDEN."""
    seen, named = visible(look, pixels), classes(look, view)
    return np.array([kinds.index(named[name]) if seen[name] else HIDDEN for name, kinds in ATTRIBUTES.items()], np.int8)

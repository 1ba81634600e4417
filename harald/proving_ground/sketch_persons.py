"""Sketched persons: who they are, how they look now, and the views of them. Pure functions of (seed, index).

A small stand-in for rendered or photographed persons: state 2k and state 2k + 1 are twins, one identity in two
states, so that only hair, beard, glasses, jewellery, headwear and clothes tell them apart.
"""

import random
from dataclasses import dataclass

from harald.determinism import rng

DOMAINS = ("photo", "comic")
SCENES = ("in a park", "on a beach", "on a street at night", "in a library", "in a cafe", "in the snow")
EXPRESSIONS = ("smiling", "laughing", "angry", "surprised", "sad", "winking", "with a neutral face")
TILTS = {"": 0.0, "head tilted to the left": -11.0, "head tilted to the right": 11.0}

HAIR_COLOURS = {"black": (45, 38, 42), "brown": (107, 68, 42), "blond": (226, 186, 104), "red": (178, 70, 34),
                "grey": (158, 160, 166), "blue": (62, 98, 178)}  # fmt: skip
HAIR_STYLES = ("short", "long", "curly", "bob", "bun", "bald")
CLOTHES = {"blue": (74, 112, 168), "green": (84, 136, 98), "red": (182, 74, 70), "yellow": (222, 178, 78),
           "purple": (128, 92, 150), "white": (226, 224, 218)}  # fmt: skip
SKINS = ((250, 219, 196), (240, 198, 164), (222, 170, 130), (186, 130, 92), (142, 94, 66), (102, 66, 48))
EYES = ((88, 60, 40), (64, 112, 160), (80, 124, 84), (112, 112, 120))


@dataclass(frozen=True)
class Identity:
    """What stays when somebody changes their looks. Colours are RGB, lengths relative to half the face's height."""

    female: bool
    young: bool
    skin: tuple[int, int, int]
    eyes: tuple[int, int, int]
    width: float
    jaw: float
    eye_distance: float
    nose: float

    @property
    def noun(self) -> str:
        return ("young " if self.young else "") + ("woman" if self.female else "man")


@dataclass(frozen=True)
class Look:
    """What a state is made of. '' means: has none."""

    hair: str
    hair_colour: str
    beard: str
    glasses: str
    earrings: str
    hat: str
    clothes: str


@dataclass(frozen=True)
class SketchView:
    """One picture to draw. jitter: shift of the head, in face heights."""

    domain: str
    number: int
    scene: str
    expression: str
    pose: str
    jitter: tuple[float, float]
    noise: int


@dataclass(frozen=True)
class SketchState:
    state_id: str
    identity: Identity
    look: Look
    views: tuple[SketchView, ...]

    def description(self) -> str:
        look = self.look
        hair = "a bald head" if look.hair == "bald" else f"{_HAIR_WORDS[look.hair]} {look.hair_colour} hair"
        extras = [hair]
        extras += [f"a {look.beard}"] * bool(look.beard)
        extras += [_GLASSES_WORDS.get(look.glasses, "")] * bool(look.glasses)
        extras += [look.earrings] * bool(look.earrings)
        worn = f"a {look.clothes} sweater" + (f" and a {look.hat}" if look.hat else "")
        listed = ", ".join(extras[:-1]) + (" and " if len(extras) > 1 else "") + extras[-1]
        return f"a {self.identity.noun} with {listed}, wearing {worn}"

    def prompt(self, view: SketchView) -> str:
        parts = [f"{view.domain} of {self.description()}", view.expression, view.pose, view.scene]
        return ", ".join(part for part in parts if part)


_HAIR_WORDS = {"short": "short", "long": "long", "curly": "curly", "bob": "chin-length", "bun": "pinned-up"}
_GLASSES_WORDS = {"round": "round glasses", "square": "square glasses", "sun": "dark sunglasses"}


def sketch_state(seed: int, index: int, views: int = 8) -> SketchState:
    """The index-th state of a seed; half of its views in each domain."""
    identity = _identity(rng(seed, "identity", index // 2))
    looks = rng(seed, "look", index // 2)
    first, second = _look(looks, identity), _look(looks, identity)
    while second.hair == first.hair or second.glasses == first.glasses:  # twins differ visibly
        second = _look(looks, identity)
    plan = rng(seed, "views", index)
    drawn = tuple(_view(plan, number, views) for number in range(views))
    return SketchState(state_id(seed, index), identity, second if index % 2 else first, drawn)


def state_id(seed: int, index: int) -> str:
    """Unique over the states of a seed: a multiplication that is one to one, then a shift."""
    shift = rng(seed, "state_id").randrange(90_000_000)
    return f"seed_{10_000_000 + (index * 7_654_321 + shift) % 90_000_000}"


def _identity(choices: random.Random) -> Identity:
    return Identity(
        female=choices.random() < 0.5,
        young=choices.random() < 0.5,
        skin=choices.choice(SKINS),
        eyes=choices.choice(EYES),
        width=choices.uniform(0.74, 0.9),
        jaw=choices.uniform(0.1, 0.3),
        eye_distance=choices.uniform(0.33, 0.4),
        nose=choices.uniform(0.1, 0.17),
    )


def _look(choices: random.Random, identity: Identity) -> Look:
    styles = HAIR_STYLES[:-1] if identity.female else HAIR_STYLES
    return Look(
        hair=choices.choice(styles),
        hair_colour=choices.choice(sorted(HAIR_COLOURS)),
        beard="" if identity.female else choices.choice(("", "full beard", "moustache", "goatee")),
        glasses=choices.choice(("", "round", "square", "sun")),
        earrings=choices.choice(
            ("", "hoop earrings", "pearl earrings") if identity.female else ("", "", "hoop earrings")
        ),
        hat=choices.choice(("", "", "beanie", "straw hat")),
        clothes=choices.choice(sorted(CLOTHES)),
    )


def _view(choices: random.Random, place: int, views: int) -> SketchView:
    per_domain = -(-views // len(DOMAINS))
    return SketchView(
        domain=DOMAINS[place // per_domain],
        number=place % per_domain + 1,
        scene=choices.choice(SCENES),
        expression=choices.choice(EXPRESSIONS),
        pose=choices.choice(sorted(TILTS)),
        jitter=(choices.uniform(-0.14, 0.14), choices.uniform(-0.07, 0.07)),
        noise=choices.randrange(2**31),
    )

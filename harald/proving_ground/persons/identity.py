"""Who somebody is: what stays when they change their looks."""

import random
from dataclasses import dataclass

from harald.proving_ground.persons.head import NAMES
from harald.proving_ground.persons.look import RGB

SKINS: tuple[RGB, ...] = (
    (0.94, 0.78, 0.69),
    (0.91, 0.72, 0.60),
    (0.86, 0.65, 0.51),
    (0.78, 0.56, 0.41),
    (0.66, 0.45, 0.31),
    (0.51, 0.33, 0.22),
    (0.38, 0.24, 0.16),
    (0.29, 0.18, 0.12),
)
SKIN_WORDS = ("pale", "fair", "light", "tan", "olive", "brown", "dark brown", "black")
EYES: dict[str, RGB] = {
    "brown": (0.26, 0.14, 0.06),
    "hazel": (0.42, 0.30, 0.12),
    "green": (0.22, 0.46, 0.26),
    "blue": (0.20, 0.42, 0.74),
    "grey": (0.46, 0.52, 0.58),
}
MIXES = ("african", "asian", "caucasian")
# Trait words and the targets that make them; a trait is said where its weight is large.
TRAITS: dict[str, tuple[str, ...]] = {
    "a wide nose": ("nose/nose-scale-horiz-incr",),
    "a narrow nose": ("nose/nose-scale-horiz-decr",),
    "a long nose": ("nose/nose-scale-vert-incr",),
    "a hooked nose": ("nose/nose-hump-incr",),
    "full lips": ("mouth/mouth-upperlip-height-incr", "mouth/mouth-lowerlip-height-incr"),
    "thin lips": ("mouth/mouth-upperlip-height-decr", "mouth/mouth-lowerlip-height-decr"),
    "a wide mouth": ("mouth/mouth-scale-horiz-incr",),
    "a broad chin": ("chin/chin-width-incr",),
    "a pointed chin": ("chin/chin-width-decr",),
    "big eyes": ("eyes/l-eye-scale-incr", "eyes/r-eye-scale-incr"),
    "small eyes": ("eyes/l-eye-scale-decr", "eyes/r-eye-scale-decr"),
    "a high forehead": ("forehead/forehead-scale-vert-incr",),
    "round cheeks": ("cheek/l-cheek-volume-incr", "cheek/r-cheek-volume-incr"),
    "a long face": ("head/head-scale-vert-incr",),
    "a broad face": ("head/head-scale-horiz-incr",),
}
SAID_FROM = 0.5  # weight of a target from which its trait is said
MOST_TRAITS = 2


@dataclass(frozen=True)
class Identity:
    """Weights of morph targets, colours as RGB in 0..1, lengths in decimetres."""

    male: bool
    gender: float  # 0 female .. 1 male
    age: float  # 0 young .. 1 old
    mix: tuple[float, float, float]  # weights of MIXES
    skin: RGB
    skin_word: str
    weight: float  # -1 slim .. 1 heavy
    eyes: str
    targets: tuple[tuple[str, float], ...]
    ruddy: float
    freckles: float
    brow: tuple[float, float, float]  # thickness, arch, slope
    iris: float
    mole: tuple[float, float, float]  # radius (0: none), x, y
    natural_hair: str

    @property
    def noun(self) -> str:
        age = "young " if self.age < 0.33 else "middle-aged " if self.age < 0.67 else "old "
        return age + ("man" if self.male else "woman")

    def phrases(self) -> list[str]:
        """'with <phrase>, <phrase> and ...': what can be said of the face."""
        said = [f"{self.skin_word} skin", f"{self.eyes} eyes"]
        said += ["freckles"] * (self.freckles > 0)
        said += ["thick eyebrows"] * (self.brow[0] > (0.062 if self.male else 0.050))
        weights = dict(self.targets)
        strengths = [(min(weights.get(name, 0.0) for name in names), trait) for trait, names in TRAITS.items()]
        strongest = sorted(strengths, reverse=True)
        return said + [trait for weight, trait in strongest[:MOST_TRAITS] if weight >= SAID_FROM]


def draw_identity(choices: random.Random) -> Identity:
    male = choices.random() < 0.5
    mix = _dirichlet(choices)
    tone = 5.4 * mix[0] + 1.9 * mix[1] + 1.0 * mix[2] + choices.gauss(0, 0.7)
    tone = min(6.99, max(0.0, tone))
    lower, share = int(tone), tone % 1
    skin = tuple(a * (1 - share) + b * share for a, b in zip(SKINS[lower], SKINS[lower + 1], strict=True))
    age = choices.choice((choices.uniform(0, 0.3), choices.uniform(0.36, 0.64), choices.uniform(0.72, 1)))
    pale = tone < 2.5
    return Identity(
        male=male,
        gender=min(1.0, max(0.0, (0.94 if male else 0.05) + choices.gauss(0, 0.05))),
        age=age,
        mix=mix,
        skin=(skin[0], skin[1], skin[2]),
        skin_word=SKIN_WORDS[round(tone)],
        weight=min(1.0, max(-0.9, choices.gauss(0, 0.5))),
        eyes=choices.choices(tuple(EYES), (30, 15, 18, 25, 12) if pale else (75, 25, 0, 0, 0))[0],
        targets=_face(choices),
        ruddy=choices.uniform(0.1, 0.8),
        freckles=choices.uniform(0.5, 1) if choices.random() < (0.25 if pale else 0.03) else 0.0,
        brow=(
            choices.uniform(0.040, 0.072) * (1 if male else 0.78),
            choices.uniform(-0.1, 0.8),
            choices.uniform(-0.6, 0.3),
        ),
        iris=choices.uniform(0.068, 0.080),
        mole=_mole(choices),
        natural_hair="grey" if age > 0.7 and choices.random() < 0.7 else _natural_hair(choices, pale),
    )


def _natural_hair(choices: random.Random, pale: bool) -> str:
    colours = ("black", "brown", "ginger", "blonde")
    return choices.choices(colours, (20, 40, 15, 25) if pale else (78, 20, 1, 1))[0]


def _mole(choices: random.Random) -> tuple[float, float, float]:
    if choices.random() > 0.12:
        return (0.0, 0.0, 0.0)
    return (choices.uniform(0.016, 0.024), choices.uniform(-0.5, 0.5), choices.uniform(6.6, 7.0))


def _dirichlet(choices: random.Random) -> tuple[float, float, float]:
    a, b, c = (choices.gammavariate(0.5, 1) + 1e-6 for _ in range(3))
    return (a / (a + b + c), b / (a + b + c), c / (a + b + c))


_SKIPPED = ("trans-in", "trans-out", "jaw-drop", "measure", "neck-trans", "trans-backward", "trans-forward", "shape-")
_DIRECTIONS = [
    "-decr",
    "-incr",
    "-up",
    "-down",
    "-in",
    "-out",
    "-concave",
    "-convex",
    "-compress",
    "-uncompress",
    "-backward",
    "-forward",
]  # endings of the two targets of one axis


def _axes() -> dict[str, dict[str, list[str]]]:
    """Axis -> direction -> targets; left and right move together."""
    axes: dict[str, dict[str, list[str]]] = {}
    for name in sorted(n[3:] for n in NAMES if n.startswith("id/") and not any(s in n for s in _SKIPPED)):
        axis = name
        for ending in _DIRECTIONS:
            axis = axis.removesuffix(ending)
        axis = axis.replace("/l-", "/").replace("/r-", "/")
        axes.setdefault(axis, {}).setdefault(name.rsplit("-", 1)[-1], []).append(name)
    return dict(sorted(axes.items()))


_AXES = _axes()
LIVELY = 0.36  # standard deviation of an axis; 0.45 made grotesque faces


def _face(choices: random.Random) -> tuple[tuple[str, float], ...]:
    targets = []
    for axis, directions in _AXES.items():
        calm = any(part in axis for part in ("head-scale", "forehead", "head-angle", "neck"))
        value = min(0.85, max(-0.85, choices.gauss(0, 0.24 if calm else LIVELY)))
        ways = sorted(directions)
        if len(ways) == 1:
            value = max(0.0, value) * 0.6
        targets += [(name, abs(value)) for name in directions[ways[0] if value < 0 else ways[-1]]]
    return tuple(targets)

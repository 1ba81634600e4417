"""How somebody looks now: the state. Drawn from a seed of its own, so that twins and look-alikes are one call each."""

from dataclasses import dataclass, replace
from random import Random

RGB = tuple[float, float, float]

HAIR_STYLES = ("bald", "cropped", "curly", "afro", "mohawk", "bob", "long", "wavy", "bun", "pigtails")
HAIR_COLOURS: dict[str, RGB] = {
    "black": (0.045, 0.04, 0.045),
    "brown": (0.24, 0.13, 0.07),
    "ginger": (0.66, 0.27, 0.07),
    "blonde": (0.84, 0.67, 0.36),
    "grey": (0.60, 0.60, 0.62),
    "blue": (0.10, 0.26, 0.78),
    "green": (0.12, 0.52, 0.26),
    "pink": (0.92, 0.36, 0.60),
    "purple": (0.42, 0.16, 0.62),
}
NATURAL = ("black", "brown", "ginger", "blonde", "grey")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
GLASSES = ("none", "round", "square", "sunglasses")
FRAMES: dict[str, RGB] = {
    "black": (0.03, 0.03, 0.035),
    "brown": (0.34, 0.18, 0.08),
    "red": (0.70, 0.05, 0.07),
    "blue": (0.08, 0.20, 0.62),
    "white": (0.90, 0.90, 0.90),
}
EARRINGS = ("none", "studs", "hoops", "drops")
NECKLACES = ("none", "chain", "pearls", "pendant")
METALS: dict[str, RGB] = {"gold": (0.98, 0.72, 0.24), "silver": (0.84, 0.86, 0.90)}
GEMS: dict[str, RGB] = {"ruby": (0.80, 0.04, 0.12), "emerald": (0.04, 0.60, 0.30), "sapphire": (0.08, 0.20, 0.80)}
PEARL: RGB = (0.95, 0.93, 0.88)
HEADWEAR = ("none", "beanie", "cap", "hat", "headscarf", "headband")
LIPSTICKS: dict[str, RGB] = {"red": (0.76, 0.03, 0.08), "pink": (0.90, 0.22, 0.46), "plum": (0.40, 0.05, 0.22)}
SHADOWS: dict[str, RGB] = {"blue": (0.12, 0.28, 0.62), "green": (0.12, 0.42, 0.26), "violet": (0.40, 0.14, 0.50)}
CLOTHES = ("t-shirt", "sweater", "hoodie", "tank top", "jacket")
COLOURS: dict[str, RGB] = {
    "red": (0.72, 0.10, 0.10),
    "orange": (0.90, 0.46, 0.10),
    "yellow": (0.92, 0.78, 0.20),
    "green": (0.16, 0.50, 0.22),
    "blue": (0.12, 0.28, 0.68),
    "purple": (0.44, 0.20, 0.56),
    "white": (0.88, 0.88, 0.86),
    "grey": (0.45, 0.46, 0.48),
    "black": (0.06, 0.06, 0.07),
}
PATTERNS = ("plain", "striped", "dotted")


def article(words: str) -> str:
    """'an orange cap', 'a red cap'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True)
class Look:
    """Colours are keys of the tables above. '' means: has none."""

    hair: str
    hair_colour: str
    tips: str  # colour of dyed tips
    fringe: bool
    volume: float
    receding: float  # of the hairline, decimetres
    side: int  # of the parting, -1 or 1
    hair_seed: int
    tucked: bool  # hair behind the ears
    beard: str
    long_beard: bool
    glasses: str
    frame: str
    earrings: str
    earring: str  # metal of studs and hoops, gem of drops
    necklace: str
    metal: str
    gem: str  # of a pendant
    headwear: str
    headwear_colour: str
    lipstick: str
    shadow: str
    clothes: str
    clothes_colour: str
    pattern: str

    def phrases(self) -> list[str]:
        """What a user would write of it, one phrase for each thing: 'with <phrase>, <phrase> and <phrase>'."""
        said = [self._hair()]
        if self.beard != "none":
            said.append({"full": "a long full beard" if self.long_beard else "a full beard"}.get(self.beard, ""))
            said[-1] = said[-1] or ("stubble" if self.beard == "stubble" else f"a {self.beard}")
        if self.glasses == "sunglasses":
            said.append(f"{self.frame} sunglasses")
        elif self.glasses != "none":
            said.append(f"{self.glasses} {self.frame} glasses")
        if self.earrings != "none":
            said.append(f"{self.earring} {EARRING_WORDS[self.earrings]}")
        if self.necklace != "none":
            said.append(self._necklace())
        if self.lipstick:
            said.append(f"{self.lipstick} lipstick and {self.shadow} eye shadow")
        return said

    def worn(self) -> str:
        pattern = "" if self.pattern == "plain" else f"{self.pattern} "
        dress = f"wearing {article(self.clothes_colour)} {pattern}{self.clothes}"
        return dress if self.headwear == "none" else f"{dress} and {article(self.headwear_colour)} {self.headwear}"

    def _hair(self) -> str:
        if self.hair == "bald":
            return "a bald head"
        tips = f" with {self.tips} tips" if self.tips else ""
        fringe = " with a fringe" if self.fringe else ""
        return HAIR_WORDS[self.hair].format(self.hair_colour) + fringe + tips

    def _necklace(self) -> str:
        return {
            "chain": f"a {self.metal} chain",
            "pearls": "a pearl necklace",
            "pendant": f"a {self.metal} necklace with {article(self.gem)} pendant",
        }[self.necklace]


EARRING_WORDS = {"studs": "stud earrings", "hoops": "hoop earrings", "drops": "drop earrings"}
HAIR_WORDS = {
    "cropped": "short {} hair",
    "curly": "curly {} hair",
    "afro": "a {} afro",
    "mohawk": "a {} mohawk",
    "bob": "a {} bob",
    "long": "long straight {} hair",
    "wavy": "long wavy {} hair",
    "bun": "{} hair in a bun",
    "pigtails": "{} hair in pigtails",
}


def draw_look(choices: Random, male: bool) -> Look:
    """A state that suits a man or a woman; nothing is worn that the hair would always hide."""
    hair = _weighted(choices, HAIR_STYLES, _MALE_HAIR if male else _FEMALE_HAIR)
    colour = choices.choice(NATURAL if choices.random() < 0.65 else tuple(HAIR_COLOURS))
    bare = hair in ("bald", "mohawk")
    look = Look(
        hair=hair,
        hair_colour=colour,
        tips=_tips(choices, colour) if hair in ("bob", "long", "wavy", "pigtails") else "",
        fringe=hair in ("bob", "long", "bun", "pigtails") and choices.random() < 0.35,
        volume=choices.uniform(0.8, 1.25),
        receding=choices.uniform(-0.02, 0.08),
        side=choices.choice((-1, 1)),
        hair_seed=choices.randrange(1 << 30),
        tucked=choices.random() < 0.4,
        beard=_weighted(choices, BEARDS, (36, 14, 16, 16, 18)) if male else "none",
        long_beard=choices.random() < 0.4,
        glasses=_weighted(choices, GLASSES, (49, 19, 19, 13)),
        frame=choices.choice(tuple(FRAMES)),
        earrings=_weighted(choices, EARRINGS, (70, 12, 14, 4) if male else (32, 22, 23, 23)),
        earring="",
        necklace=_weighted(choices, NECKLACES, (62, 16, 8, 14) if male else (40, 20, 20, 20)),
        metal=choices.choice(tuple(METALS)),
        gem=choices.choice(tuple(GEMS)),
        headwear=_weighted(choices, HEADWEAR, (64, 9, 9, 9, 0, 9) if male else (64, 7, 7, 8, 8, 6)),
        headwear_colour=choices.choice(tuple(COLOURS)),
        lipstick=choices.choice(tuple(LIPSTICKS)) if choices.random() < (0.04 if male else 0.5) else "",
        shadow=choices.choice(tuple(SHADOWS)),
        clothes=choices.choice(CLOTHES),
        clothes_colour=choices.choice(tuple(COLOURS)),
        pattern=_weighted(choices, PATTERNS, (60, 25, 15)),
    )
    stones = tuple(GEMS) if look.earrings == "drops" else tuple(METALS)
    look = replace(look, earring=choices.choice((*stones, "pearl") if look.earrings != "hoops" else stones))
    return _sensible(look, bare)


def _sensible(look: Look, bare: bool) -> Look:
    """Earrings show: hair that would cover them is tucked behind the ears. A headscarf leaves no ear and no neck."""
    if look.headwear == "headscarf":
        look = replace(look, earrings="none", necklace="none")
    if look.headwear != "none" and look.hair in ("mohawk", "bun", "afro"):
        look = replace(look, headwear="none" if look.headwear != "headscarf" else "headscarf")
    if look.earrings != "none":
        look = replace(look, tucked=True)
    if bare and look.headwear == "headband":
        look = replace(look, headwear="none")
    return look


_MALE_HAIR = (13, 26, 12, 10, 10, 6, 9, 6, 6, 2)
_FEMALE_HAIR = (2, 7, 10, 10, 5, 15, 16, 13, 11, 11)


def _tips(choices: Random, colour: str) -> str:
    bright = [name for name in ("blonde", "blue", "green", "pink", "purple") if name != colour]
    return choices.choice(bright) if choices.random() < 0.10 else ""


def _weighted(choices: Random, kinds: tuple[str, ...], weights: tuple[int, ...]) -> str:
    return choices.choices(kinds, weights)[0]

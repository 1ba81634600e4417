"""A person's description taken apart: which of its phrases say what each group of tokens is to carry."""

import functools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harald.errors import ConfigError, did_you_mean

# Kinds of what a phrase says, by family. A phrase is of the first kind of which it has a word; other phrases belong to
# the face, other clothes to the outfit. A group of tokens is named after the kind that it carries, or after a family.
KINDS: dict[str, dict[str, str]] = {
    "worn": {
        "glasses": r"(sun)?glasses|spectacles|goggles|monocle",
        "beard": r"beard(ed)?|goatee|stubble|moustache|mustache|sideburns",
        "earrings": r"ear-?rings?|studs?|hoops?",
        "necklace": r"necklaces?|chain|pendant|choker|pearls?",
        "piercing": r"piercings?|nose ring",
        "headwear": r"hat|cap|beanie|beret|headscarf|hijab|turban|headband|helmet|tiara|veil",
        "makeup": r"lipstick|make-?up|eye ?shadow|eyeliner|mascara|blush",
        "tattoo": r"tattoos?|bindi",
    },
    "hair": {
        "hair": r"(?:\w+-)?hair(?:ed|cut|style)?|bald|bun|pony ?tail|pig ?tails|braids?|plaits?|afro|mohawk|bob|curls"
        r"|locks|dreadlocks|fringe|bangs|undercut|buzz ?cut|pixie|mullet|wig|blonde?|brunette|redhead",
    },
    "outfit": {
        "outfit": r"\w*shirt|top|sweater|jumper|pullover|turtleneck|hoodie|cardigan|jacket|\w*coat|blazer|\w*suit"
        r"|tuxedo|bikini|dress|blouse|vest|uniform|costume|\w*robe|gown|scarf|tie|jeans|trousers|pants|skirt|shorts|pyjamas"
        r"|shoes|boots|apron|kimono|sari|armou?r|outfit|clothes|clothing",
    },
}
FACE, OUTFIT = "face", "outfit"
GROUPS = (FACE, *KINDS)
ALL = "all"  # what a group may be called that carries everything
_KINDS = {
    (group, kind): re.compile(rf"\b({words})\b", re.IGNORECASE)
    for group, kinds in KINDS.items()
    for kind, words in kinds.items()
}
_LAST = {names: re.compile(rf"{words.pattern}(?:\s+(?:head|style))?$") for names, words in _KINDS.items()}
_LIST = re.compile(r",\s+(?:and\s+)?|\s+and\s+")
_WEARING = re.compile(r",?\s+(?:wearing|dressed in)\s+")
_HEAD = re.compile(r"\s+with\s+|,\s+")


def check_groups(names: Sequence[str]) -> None:
    """A group is trained to carry what its name says. Raises ConfigError for a name that says nothing."""
    known = {*GROUPS, *(kind for kinds in KINDS.values() for kind in kinds)}
    for name in names if list(names) != [ALL] else ():
        if name not in known:
            raise ConfigError(
                f"encoder.groups has {name!r}, which is no part of a person that descriptions speak of",
                f"{did_you_mean(name, known)} One group alone may be called {ALL!r}",
            )


@dataclass(frozen=True)
class Description:
    """head: 'a young woman'; items: phrases after 'with', clothes: after 'wearing'; each (text, family)."""

    head: str
    items: tuple[tuple[str, str], ...]
    clothes: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        said = [self.head]
        if self.items:
            said.append(f" with {listed([text for text, _ in self.items])}")
        if self.clothes:
            said.append(f", wearing {listed([text for text, _ in self.clothes])}")
        return "".join(said)


@functools.lru_cache(10_000)
def read(text: str) -> Description:
    """
    >>> read("a young man with short red hair, a beard and round glasses, wearing a coat and a hat").items
    (('short red hair', 'hair'), ('a beard', 'worn'), ('round glasses', 'worn'))
    """
    body, *clothes = _WEARING.split(text, maxsplit=1)
    head, *items = _HEAD.split(body, maxsplit=1)
    return Description(head, _phrases(items, FACE), _phrases(clothes, OUTFIT))


def without(text: str, dropped: Collection[str], class_word: str, groups: Collection[str] = GROUPS) -> str:
    """The description without what some of the groups carry; without the face, the class word stands for the person.

    >>> without("a young man with short red hair, a beard and round glasses, wearing a coat", {"worn"}, "person")
    'a young man with short red hair, wearing a coat'
    """
    said = read(text)
    items, clothes = (
        tuple((phrase, family) for phrase, family in part if _carrier(phrase, family, groups) not in dropped)
        for part in (said.items, said.clothes)
    )
    if FACE not in dropped and (items, clothes) == (said.items, said.clothes):
        return text
    return str(Description(class_word if FACE in dropped else said.head, items, clothes))


def carriers(text: str, groups: Collection[str]) -> list[str]:
    """Groups that carry something the description says, in their order.

    >>> carriers("a man with red hair and glasses, wearing a coat", ("face", "hair", "glasses", "beard", "outfit"))
    ['face', 'hair', 'glasses', 'outfit']
    """
    said = read(text)
    found = {FACE} | {_carrier(phrase, family, groups) for phrase, family in said.items + said.clothes}
    return [group for group in groups if group in found]


def _carrier(phrase: str, family: str, groups: Collection[str]) -> str:
    """The group that carries a phrase: of its kind, else of its family, else the face."""
    return next((group for group in (_found(phrase)[1], family) if group in groups), FACE)


def kind_of(phrase: str) -> str:
    """The kind that a phrase ends with a word of: 'outfit' for "a hat-shaped coat", '' for "a hat shop". Nothing of it
    is kept.
    """
    return next((kind for (_, kind), words in _LAST.items() if words.search(phrase)), "")


@dataclass(frozen=True)
class Wish:
    """Something to wear or a hair style, as a description says it. said: 'with round red glasses'; kind: 'glasses'."""

    said: str
    kind: str


def wishes(text: str, families: Collection[str] = ("hair", "worn")) -> list[Wish]:
    """What a description could lend another person.

    >>> wishes("a man with short red hair and freckles, wearing a coat and a blue cap")
    [Wish(said='with short red hair', kind='hair'), Wish(said='wearing a blue cap', kind='headwear')]
    """
    said = read(text)
    phrases = [("with", phrase) for phrase in said.items] + [("wearing", phrase) for phrase in said.clothes]
    return [Wish(f"{how} {phrase}", _found(phrase)[1]) for how, (phrase, family) in phrases if family in families]


def granted(text: str, wish: Wish) -> str:
    """The description with the wish in the place of what it says of that kind.

    >>> granted("a man with short red hair and round glasses, wearing a coat", Wish("with a black afro", "hair"))
    'a man with a black afro and round glasses, wearing a coat'
    """
    said, (how, _, phrase) = read(text), wish.said.partition(" ")
    kinds = [_found(old)[1] for old, _ in said.items]
    place = kinds.index(wish.kind) if wish.kind in kinds else len(kinds)
    items, clothes = ([p for p in part if _found(p[0])[1] != wish.kind] for part in (said.items, said.clothes))
    fresh = (phrase, _family(phrase, FACE))
    if how == "wearing":
        clothes.append(fresh)
    else:
        items.insert(place, fresh)
    return str(Description(said.head, tuple(items), tuple(clothes)))


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _phrases(parts: list[str], otherwise: str) -> tuple[tuple[str, str], ...]:
    phrases = (phrase.strip() for part in parts for phrase in _LIST.split(part))
    return tuple((phrase, _family(phrase, otherwise)) for phrase in phrases if phrase)


def _family(phrase: str, otherwise: str) -> str:
    return _found(phrase)[0] or otherwise


@functools.lru_cache(10_000)
def _found(phrase: str) -> tuple[str, str]:
    """Family and kind, empty where no word is known."""
    return next((names for names, words in _KINDS.items() if words.search(phrase)), ("", ""))

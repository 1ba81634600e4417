"""A person's description taken apart: which of its phrases say what each group of tokens is to carry."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

# The group of a phrase is that of the first word found here; other phrases belong to the face, clothes to the outfit.
GROUPS = {
    "worn": r"(sun)?glasses|spectacles|goggles|monocle|beard(ed)?|goatee|stubble|moustache|mustache|sideburns"
    r"|ear-?rings?|studs?|hoops?|necklaces?|chain|pendant|choker|pearls?|piercings?|nose ring"
    r"|hat|cap|beanie|beret|headscarf|hijab"
    r"|turban|headband|helmet|tiara|veil|lipstick|make-?up|eye ?shadow|eyeliner|mascara|blush|tattoos?|bindi",
    "hair": r"\w*hair(ed)?|bald|bun|pony ?tail|pig ?tails|braids?|plaits?|afro|mohawk|bob|curls|locks|dreadlocks"
    r"|fringe|bangs|undercut|buzz ?cut|pixie|mullet|wig|blonde?|brunette|redhead",
    "outfit": r"\w*shirt|top|sweater|jumper|hoodie|cardigan|jacket|coat|blazer|suit|dress|blouse|vest|uniform|robe|gown"
    r"|scarf|tie|jeans|trousers|pants|skirt|shorts|shoes|boots|apron|kimono|sari|outfit|clothes|clothing",
}
FACE, OUTFIT = "face", "outfit"
_GROUPS = {name: re.compile(rf"\b({words})\b", re.IGNORECASE) for name, words in GROUPS.items()}
_LIST = re.compile(r",\s+(?:and\s+)?|\s+and\s+")
_WEARING = re.compile(r",?\s+(?:wearing|dressed in)\s+")
_HEAD = re.compile(r"\s+with\s+|,\s+")


@dataclass(frozen=True)
class Description:
    """head: 'a young woman'; items: phrases after 'with', clothes: after 'wearing'; each (text, group)."""

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


def read(text: str) -> Description:
    """
    >>> read("a young man with short red hair, a beard and round glasses, wearing a coat and a hat").items
    (('short red hair', 'hair'), ('a beard', 'worn'), ('round glasses', 'worn'))
    """
    body, *clothes = _WEARING.split(text, maxsplit=1)
    head, *items = _HEAD.split(body, maxsplit=1)
    return Description(head, _phrases(items, FACE), _phrases(clothes, OUTFIT))


def without(text: str, groups: Collection[str], class_word: str) -> str:
    """The description without what some groups carry; without the face, the class word stands for the person.

    >>> without("a young man with short red hair, a beard and round glasses, wearing a coat", {"worn"}, "person")
    'a young man with short red hair, wearing a coat'
    """
    said = read(text)
    items, clothes = (tuple(p for p in part if p[1] not in groups) for part in (said.items, said.clothes))
    if FACE not in groups and (items, clothes) == (said.items, said.clothes):
        return text
    return str(Description(class_word if FACE in groups else said.head, items, clothes))


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _phrases(parts: list[str], otherwise: str) -> tuple[tuple[str, str], ...]:
    phrases = (phrase.strip() for part in parts for phrase in _LIST.split(part))
    return tuple((phrase, _group(phrase, otherwise)) for phrase in phrases if phrase)


def _group(phrase: str, otherwise: str) -> str:
    return next((name for name, words in _GROUPS.items() if words.search(phrase)), otherwise)

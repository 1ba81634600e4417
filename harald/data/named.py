"""What the words of a prompt say of a person's looks: "<person> with round glasses, a beard and a hat, on a beach".

A reader of English that errs on the silent side: words that it does not take for the person's leave the tokens whole,
and the picture then weighs the two against each other.
"""

import re

from harald.data.description import kind_of
from harald.data.words import PERSON_WORDS

_CLAUSE = re.compile(r"[,;:!?()\n]|\.(?!\d)|\s[-\u2013\u2014]\s")
_HOW = re.compile(r"\s*\b(with(?:out)?|wearing|wears|dressed\s+in|has|having|in|and)\s+")
_END = re.compile(r"(?:\s+(?:and|or|with|plus))?\s*$")  # before the next person
# A noun phrase ends before these.
_REST = re.compile(
    r"\s+(?=(?:on|at|of|over|under|behind|beside|near|by|from|for|to|into|through|against|that|which|is|are|while"
    r"|next|\w+ing)\b)"
)
_ELSEWHERE = re.compile(r"(?:on|at|under|behind|beside|near|by|in|next|over|against)\b(?!\s+(?:his|her|their)\b)")
_OPENING = re.compile(r"(?:on|at|of|in|over|under|behind|beside|near|by|from|for|to|next|\w+ing)\b")
_OTHERS = PERSON_WORDS | {
    *("friend", "friends", "girlfriend", "boyfriend", "brother", "sister", "son", "daughter", "husband", "wife"),
    *("dad", "mum", "mom", "crowd", "couple", "dog", "cat", "horse", "doll"),
}


def named(words: str) -> set[str]:
    """Kinds (see description.KINDS) of the person that the words behind the person's place say something of; where
    another person is spoken of, the clause ends.

    >>> sorted(named(" with red hair, a beard and round glasses, wearing a hat, in an armchair, a coat on the wall"))
    ['beard', 'glasses', 'hair', 'headwear']
    """
    found, listing = set[str](), False
    for clause in _CLAUSE.split(_END.sub("", words)):
        kinds, listing = _in_clause(clause.strip(), listing)
        found |= kinds
    return found


def _in_clause(clause: str, listing: bool) -> tuple[set[str], bool]:
    """Kinds, and whether a list of them is open at the end. listing: whether one is at the begin."""
    lead, *rest = _HOW.split(f" {clause}" if _HOW.match(f" {clause}") else clause)
    parts = list(zip(rest[::2], rest[1::2], strict=True))
    if lead.strip():
        goes_on = listing and not _OPENING.match(lead)
        parts.insert(0, ("and" if goes_on else "", lead))
    found, how, first = set[str](), "with" if listing else "", True
    for word, text in parts:
        how = how if word == "and" else word.split()[0] if word else ""
        phrase, behind = _cut(text)
        kind = kind_of(phrase) if how else ""
        if _speaks_of_others(phrase):
            return found, False
        loose = not first or word == "and"  # "in a park with a red hat on the bench"
        if (how == "in" and kind in ("", "hair", "beard")) or (loose and how != "wearing" and _ELSEWHERE.match(behind)):
            kind = ""
        found |= {kind} - {""}
        first = False
        if _speaks_of_others(behind):
            return found, False
    return found, bool(found)


def _speaks_of_others(text: str) -> bool:
    return bool(_OTHERS & set(re.findall(r"[a-z]+", text.lower())))


def _cut(text: str) -> tuple[str, str]:
    """The noun phrase that a text begins with, and what comes behind it."""
    end = _REST.search(text)
    return (text[: end.start()], text[end.end() :]) if end else (text.strip(), "")

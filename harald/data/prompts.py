"""What the prompts of a state share is the person; what varies is scene, pose and expression. No language model.

A prompt that still says "red hair, round glasses" lets a model ignore the pictures, so training mostly reads prompts in
which `<person>` stands in place of the description.

Method: words and punctuation of every prompt; the medium ("photo of", "in comic style") is set aside; runs of words
that stand in every prompt without a gap are found; the one that names a person (else the one with most content words)
becomes `<person>`, the others are removed, because they too are true in every view. Whatever is shared counts: what
all prompts of a state repeat is taken for the person, be it a scene. The more views, the more reliable.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from harald.data.words import (
    ARTICLES,
    MEDIA,
    MEDIUM_DETAILS,
    MEDIUM_WORDS,
    PERSON_WORDS,
    PLACE_WORDS,
    SHOWS,
    STOP_WORDS,
)

PLACEHOLDER = "<person>"
_LIKE_A_PLACEHOLDER = re.compile(r"<\s*/?\s*person[^>]*>?", re.IGNORECASE)
_TOKEN = re.compile(r"\w+(?:['’\-]\w+)*|[^\w\s]")

Separation = Literal["shared", "given", "single", "nothing"]
Span = tuple[int, int]


@dataclass(frozen=True)
class Separated:
    """person: the description, as the first prompt writes it ('' if none was found); prompts: one per prompt, in order.

    how: 'shared': found as said above; 'given': every prompt held <person> already;
    'single': fewer than two distinct prompts, so nothing tells person from scene: each becomes `<person>` alone;
    'nothing': the prompts share no description: each becomes `<person>, <prompt>` and is NOT silent about the state.
    """

    person: str
    prompts: tuple[str, ...]
    how: Separation


def separate(prompts: Sequence[str]) -> Separated:
    """The prompts of one state -> the person's description and the state-free prompts.

    >>> found = separate(["photo of a man with a red beard, laughing, at sea", "comic of a man with a red beard"])
    >>> found.person
    'a man with a red beard'
    >>> found.prompts
    ('photo of <person>, laughing, at sea', 'comic of <person>')
    """
    written = [p for p in dict.fromkeys(prompts) if PLACEHOLDER not in p]
    if not written:
        return Separated("", tuple(prompts), "given")
    texts = [_Text(prompt) for prompt in written]
    distinct = list({tuple(text.words): text for text in texts}.values())
    if len(distinct) < 2:
        freed, person, how = dict.fromkeys(written, PLACEHOLDER), "", "single"
    elif not (runs := _shared_runs(distinct)):
        freed, person, how = {prompt: f"{PLACEHOLDER}, {prompt}" for prompt in written}, "", "nothing"
    else:
        person = texts[0].find(runs[0])
        freed, how = {text.prompt: text.without(runs) for text in texts}, "shared"
    return Separated(person, tuple(freed.get(prompt, prompt) for prompt in prompts), how)


def malformed_placeholder(prompt: str) -> str:
    """What looks like a placeholder and is none here, such as '<Person>'; '' if all is well. A state is one person, so
    '<person:ann>' is none, either.
    """
    odd = _LIKE_A_PLACEHOLDER.search(prompt.replace(PLACEHOLDER, ""))
    return odd.group() if odd else ""


def medium(prompt: str) -> str:
    """What a prompt begins with to say what the picture is; '' if it does not.

    >>> medium("black and white photo of <person>, laughing"), medium("<person> with a photo in hand")
    ('black and white photo of', '')
    """
    text = _Text(prompt)
    ends = [end for start, end in _medium_spans(text.words) if start == 0]
    return prompt[text.spans[0][0] : text.spans[ends[0] - 1][1]] if ends else ""


class _Text:
    """A prompt as words (lower case, punctuation too) with their places; words about the medium are masked."""

    def __init__(self, prompt: str):
        self.prompt = prompt
        self.words = [word.lower() for word in _TOKEN.findall(prompt)]
        self.masked = list(self.words)
        for start, end in _medium_spans(self.words):
            self.masked[start:end] = ["\x00"] * (end - start)
        self.key = f" {' '.join(self.masked)} "

    @functools.cached_property
    def spans(self) -> list[Span]:
        """Where each word stands in the prompt, in characters."""
        return [match.span() for match in _TOKEN.finditer(self.prompt)]

    def places(self, run: Sequence[str]) -> list[Span]:
        """Where the run stands, as [start, end) in words."""
        starts = (i for i, word in enumerate(self.masked) if word == run[0]) if run[0] in self.masked else ()
        return [(i, i + len(run)) for i in starts if self.masked[i : i + len(run)] == list(run)]

    def find(self, run: Sequence[str]) -> str:
        start, end = self.places(run)[0]
        return self.prompt[self.spans[start][0] : self.spans[end - 1][1]]

    def without(self, runs: list[list[str]]) -> str:
        """The first run replaced by <person> where it stands first; its repetitions and the other runs removed."""
        place = self.places(runs[0])[0]
        cuts = [(place, PLACEHOLDER)]
        for run in (*runs[1:], runs[0]):
            for start, end in self.places(run):
                if all(end <= taken[0] or start >= taken[1] for taken, _ in cuts):
                    cuts.append(((start, end), ""))
        pieces, position = [], 0
        for (start, end), word in sorted(cuts):
            pieces += [self.prompt[position : self.spans[start][0]], word]
            position = self.spans[end - 1][1]
        return _tidy("".join(pieces) + self.prompt[position:])


def _medium_spans(words: list[str]) -> Iterator[Span]:
    """Phrases that say what the picture is: 'black and white photo of', ', comic style', 'drawn in comic style'."""
    head = next((i for i, word in enumerate(words[:8]) if word in MEDIA), None)
    opening = 0
    if head is not None and not any(w in PERSON_WORDS for w in words[:head]):
        shows = next((i for i in range(head + 1, min(head + 6, len(words))) if words[i] in SHOWS), None)
        between = words[head + 1 : shows] if shows is not None else []
        if shows is not None and not any(w in PERSON_WORDS or not w[0].isalnum() for w in between):
            opening = shows + 1
        elif all(w in MEDIUM_DETAILS or w in STOP_WORDS for w in words[:head]):
            opening = head + 1
        if opening:
            yield 0, opening
    medium = [i for i in range(opening, len(words)) if words[i] in MEDIUM_WORDS]
    for start in medium:
        end = start
        while end < len(words) and words[end] in MEDIUM_WORDS:
            end += 1
        closed = end == len(words) or not words[end][0].isalnum()
        if closed and not MEDIA.isdisjoint(words[start:end]):
            while start > opening and words[start - 1] in {"in", "as", "a", "an", "the"}:
                start -= 1
            yield start, end


def _shared_runs(texts: list[_Text]) -> list[list[str]]:
    """Runs that stand in every text, the person first; trimmed. Empty if none has a content word."""
    shortest = min(texts, key=lambda text: (len(text.words), text.prompt))
    others = [text.key for text in texts if text is not shortest]
    words = shortest.masked
    found = [_whole_phrases(run, texts) for run in _cover(words, _reaches(words, others), 0, len(words))]
    found = [run for run in found if run]
    if not found:
        return []
    main = max(found, key=lambda run: (not PERSON_WORDS.isdisjoint(run), _content(run)))
    rest = [_trim(run, keep_articles=False) for run in found if run is not main]
    return [_trim(main, keep_articles=True), *rest]


def _reaches(words: list[str], others: list[str]) -> list[int]:
    """For every word, the end of the longest run from it that stands in all the others; two pointers."""
    reaches, end = [], 0
    for start in range(len(words)):
        end = max(end, start)
        while end < len(words) and _everywhere(words[start : end + 1], others):
            end += 1
        reaches.append(end)
    return reaches


def _everywhere(run: list[str], keys: list[str]) -> bool:
    if run[-1] == "\x00":
        return False
    needle = f" {' '.join(run)} "
    return all(needle in key for key in keys)


def _cover(words: list[str], reaches: list[int], low: int, high: int) -> list[list[str]]:
    """Runs with content words in [low, high) that do not overlap, the richest first taken, in the order of the text."""
    best = max(
        ((start, min(reaches[start], high)) for start in range(low, high)),
        key=lambda span: (_content(words[span[0] : span[1]]), span[1] - span[0]),
        default=(low, low),
    )
    if not _content(words[best[0] : best[1]]):
        return []
    left, right = _cover(words, reaches, low, best[0]), _cover(words, reaches, best[1], high)
    return [*left, words[best[0] : best[1]], *right]


def _content(run: Sequence[str]) -> int:
    return sum(word not in STOP_WORDS and word[0].isalnum() for word in run)


def _trim(run: list[str], keep_articles: bool) -> list[str]:
    """Without punctuation and small words at its ends; the description keeps its article, other runs their 'with'."""
    start, end = 0, len(run)
    while not _content(run[end - 1 : end]):
        end -= 1
    while not _content(run[start : start + 1]) and (keep_articles or not run[start][0].isalnum()):
        if run[start] in ARTICLES:
            break
        start += 1
    return run[start:end]


def _whole_phrases(run: list[str], texts: list[_Text]) -> list[str]:
    """Without the scene's part at the start of a run: 'park, a man' behind 'sunny' and 'dark', 'in a park, a man'."""
    while _content(run):
        comma = next((i for i, word in enumerate(run) if not word[0].isalnum()), len(run))
        head, tail = run[:comma], run[comma + 1 :]
        if head and not PERSON_WORDS.isdisjoint(head):
            return run
        place = bool(head) and head[0] in PLACE_WORDS and not PERSON_WORDS.isdisjoint(tail)
        if _content(head) and not place and not _ends_a_varying_phrase(head, run, texts):
            return run
        run = tail
    return []


def _ends_a_varying_phrase(head: list[str], run: list[str], texts: list[_Text]) -> bool:
    """Whether `head` is one content word with another one right before it in every text: 'sunny park'."""
    if len(head) != 1:
        return False
    places = ((text, start) for text in texts for start, _ in text.places(run))
    return all(start > 0 and _content(text.masked[start - 1 : start]) for text, start in places)


_TIDY = (
    (re.compile(r"[^\S ]|  +"), " "),
    (re.compile(r" +([,.;:!?])"), r"\1"),
    (re.compile(r" ?\b(?:and|or|with|wearing|has|having|is)(?=[,.;:!?]|$)"), ""),
    (re.compile(r"[,;:](?:\s*[,;:])+"), ","),
    (re.compile(r"[,;:]+\s*([.!?])"), r"\1"),
    (re.compile(r"([.!?])(?:\s*[,;:.!?])+"), r"\1"),
    (re.compile(r"^[\s,;:.!?]+|[\s,;:]+$"), ""),
)
_UNTIDY = re.compile("|".join(pattern.pattern for pattern, _ in _TIDY))


def _tidy(text: str) -> str:
    """Punctuation and blanks as if the removed words had never been there."""
    while _UNTIDY.search(text):
        before = text
        for pattern, replacement in _TIDY:
            text = pattern.sub(replacement, text)
        if text == before:
            break
    return text

"""Prompts of unequal length as one batch, with the places where person tokens go. Needs no model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL
from harald.errors import PromptError
from harald.injection.prompt import Prompt

Tokenize = Callable[[str], list[int]]
Rows = Mapping[str, Sequence[int]]  # name of a person -> which rows of a table of tokens stand for them


@dataclass(frozen=True)
class Layout:
    """b prompts, padded on the right.

    ids: [b, m] of the text encoder's input, anything where tokens or padding stand; order: [b, l] which text state
    stands where (output point), None where states stay in their order (input point, both); put, take: [n] row of the
    flattened conditioning (output) or input (input, both), and the row of tokens that goes there (a row behind the last
    one is nowhere); mask: [b, l] False where padded, None if nothing is; both: a row of tokens is two vectors, and the
    second one goes to the same place behind the text encoder.
    """

    ids: Tensor
    order: Tensor | None
    put: Tensor
    take: Tensor
    mask: Tensor | None
    both: bool = False


def piece(layout: Layout, first: int, last: int) -> Layout:
    """Prompts first to last - 1 of the layout, as wide as all of them; asks the device for nothing."""
    width = (layout.ids if layout.order is None else layout.order).shape[1]
    begin, end = first * width, last * width
    inside = (layout.put >= begin) & (layout.put < end)
    return Layout(
        ids=layout.ids[first:last],
        order=None if layout.order is None else layout.order[first:last],
        put=torch.where(inside, layout.put - begin, end - begin),  # the others go nowhere
        take=layout.take,
        mask=None if layout.mask is None else layout.mask[first:last],
        both=layout.both,
    )


@dataclass(frozen=True)
class Room:
    """Sizes that do not depend on what is said: lengths are multiples, and every prompt has room for so many tokens."""

    multiple: int = 1
    tokens: int = 0


EXACT = Room()


def lay_out(
    tokenize: Tokenize, prompts: Sequence[tuple[Prompt, Rows]], point: str, class_word: str, room: Room = EXACT
) -> Layout:
    """Prompts with the rows of their persons' tokens; no persons: the class word alone, as plain text.

    Raises PromptError if a placeholder runs into the next word.
    """
    if point == "output":
        texts = [_template(tokenize, prompt.with_word(class_word)) for prompt, _ in prompts]
        head = len(tokenize(TEMPLATE_HEAD))
        lines = [
            _inserted(list(range(len(ids) - head)), word_ends(tokenize, prompt, class_word), prompt, rows)
            for ids, (prompt, rows) in zip(texts, prompts, strict=True)
        ]
        return _batch(texts, lines, 0, room)
    lines = [
        _replaced(tokenize, prompt, rows) if rows else _template(tokenize, prompt.with_word(class_word))
        for prompt, rows in prompts
    ]
    return replace(_batch(lines, None, len(tokenize(TEMPLATE_HEAD)), room), both=point == "both")


def word_ends(tokenize: Tokenize, prompt: Prompt, class_word: str) -> list[int]:
    """Index, in the prompt's states, after the last token of each class word. PromptError if no token ends there."""
    text = prompt.with_word(class_word)
    ids, ends = tokenize(text), []
    for _, end in prompt.spans(class_word):
        before = tokenize(text[:end])
        if ids[: len(before)] != before:
            raise PromptError(
                f"the placeholder runs into the next word: {text[: end + 8]!r}",
                "put a space or a comma after the placeholder",
            )
        ends.append(len(before))
    return ends


def _template(tokenize: Tokenize, text: str) -> list[int]:
    return tokenize(TEMPLATE_HEAD + text + TEMPLATE_TAIL)


# A line of a batch: what stands at each place. A number of 0 or more is a token id or the index of a text state, a
# negative one the row -1 - r of the tokens.
def _inserted(line: list[int], ends: list[int], prompt: Prompt, rows: Rows) -> list[int]:
    """Each person's rows right after the word that stands for them."""
    if rows:
        for name, end in reversed(list(zip(prompt.names, ends, strict=True))):
            line[end:end] = [-1 - row for row in rows[name]]
    return line


def _replaced(tokenize: Tokenize, prompt: Prompt, rows: Rows) -> list[int]:
    """Rows in the place of the placeholders. A space before a placeholder belongs to the tokens, as it belongs to a
    word in byte-level BPE."""
    texts = [text.removesuffix(" ") for text in prompt.texts[:-1]] + [prompt.texts[-1]]
    texts[0], texts[-1] = TEMPLATE_HEAD + texts[0], texts[-1] + TEMPLATE_TAIL
    line = []
    for text, name in zip(texts, [*prompt.names, None], strict=True):
        line += tokenize(text) if text else []
        line += [-1 - row for row in rows[name]] if name is not None else []
    return line


def _batch(texts: list[list[int]], lines: list[list[int]] | None, head: int, room: Room) -> Layout:
    """texts: lines of the text encoder's input; lines: of the conditioning, None where it is the input without head."""
    places = _padded(lines or texts, room.multiple)
    lengths = torch.tensor([len(line) - head for line in lines or texts])
    put = torch.nonzero(places.flatten() < 0)[:, 0]
    take, spare = -1 - places.flatten()[put], max(0, room.tokens * len(texts) - len(put))
    inside = torch.arange(places.shape[1] - head) < lengths[:, None]
    return Layout(
        ids=_padded(texts, room.multiple).clamp(min=0),
        order=places.clamp(min=0) if lines else None,
        put=F.pad(put, (0, spare), value=places.numel()),
        take=F.pad(take, (0, spare)),
        mask=None if room == EXACT and bool(inside.all()) else inside,
    )


def _padded(lines: list[list[int]], multiple: int) -> Tensor:
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(line) for line in lines], batch_first=True)
    return F.pad(padded, (0, -padded.shape[1] % multiple))

"""The truth about a picture as short answers to fixed questions, which stand side by side and do not see each other.

A model that writes one text about a picture soon knows the trained texts by heart: the first phrases tell it the rest,
and it need not look (measured, see docs/log.md). Here every answer can come from the picture alone.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from harald.config import Injection
from harald.data.description import FACE, OUTFIT, read, wishes
from harald.errors import ConfigError
from harald.proving_ground.persons import ATTRIBUTES, HIDDEN

IGNORED = -100  # where no answer stands
END = "<|im_end|>"
NONE, UNSEEN = "no", "?"  # it is not there; the part cannot be seen
SKIN, EYES = "skin", "eyes"
VIEW = ("framing", "expression", "pose", "scene")  # in the order in which a prompt says them
WIDTHS = {  # question -> most tokens that it may have with its answer
    "hair": 14, "hair_colour": 7, "beard": 7, "glasses": 6, "earrings": 6, "necklace": 10, "headwear": 8, "makeup": 10,
    "domain": 6, "framing": 9, "expression": 12, "pose": 8, "scene": 8,
    "person": 7, SKIN: 6, EYES: 9, FACE: 16, OUTFIT: 12,
}  # fmt: skip


def facts(full: str, state_free: str, labels: Sequence[int]) -> list[str]:
    """Answers in the order of WIDTHS, in the words of the full text; the colour of the hair as the name of its class.

    labels: number of the class of each attribute.
    """
    domain, _, view = state_free.partition(f" of {Injection().class_word}")
    phrases = _phrases(full.removeprefix(f"{domain} of ").removesuffix(view)) | {"domain": domain}
    phrases |= zip(VIEW, view.removeprefix(", ").split(", "), strict=True)
    seen = dict(zip(ATTRIBUTES, labels, strict=True))
    return [_fact(name, phrases.get(name), seen.get(name)) for name in WIDTHS]


@functools.lru_cache(maxsize=16)
def _phrases(described: str) -> dict[str, str]:
    """Question -> what the description says about it."""
    said = read(described)
    phrases = {"person": [said.head]}
    for wish in wishes(described, ("hair", "worn", OUTFIT)):
        phrases.setdefault(wish.kind, []).append(wish.said.partition(" ")[2])
    for phrase in (phrase for phrase, group in said.items if group == FACE):
        phrases.setdefault(next((word for word in (SKIN, EYES) if word in phrase), FACE), []).append(phrase)
    return {name: ", ".join(parts) for name, parts in phrases.items()}


def _fact(name: str, phrase: str | None, label: int | None) -> str:
    if label == HIDDEN:
        return UNSEEN
    if label is not None and ATTRIBUTES[name][label] == "none":
        return NONE
    return phrase or (NONE if label is None else ATTRIBUTES[name][label])


@dataclass(frozen=True)
class Sheet:
    """The questions as one row of tokens, and who sees whom in it. L = sum of WIDTHS.

    ids: [L] tokens of the questions, IGNORED where an answer goes; rooms: where each answer goes; block, offset: [L]
    number of the question, and the place within it.
    """

    ids: Tensor
    rooms: tuple[range, ...]
    block: Tensor
    offset: Tensor

    @staticmethod
    def of(tokenizer: Qwen2Tokenizer) -> "Sheet":
        widths = torch.tensor(list(WIDTHS.values()))
        block, ends = torch.arange(len(widths)).repeat_interleave(widths), widths.cumsum(0).tolist()
        begins = torch.tensor([0, *ends[:-1]])
        asked = tokenizer([f" {name.replace('_', ' ')}:" for name in WIDTHS]).input_ids
        ids = torch.full((ends[-1],), IGNORED)
        for begin, row in zip(begins.tolist(), asked, strict=True):
            ids[begin : begin + len(row)] = torch.tensor(row)
        rooms = (range(b + len(row), end) for b, row, end in zip(begins.tolist(), asked, ends, strict=True))
        return Sheet(ids, tuple(rooms), block, torch.arange(len(ids)) - begins[block])

    def answers(self, tokenizer: Qwen2Tokenizer, rows: Sequence[Sequence[str]]) -> Tensor:
        """[n, L]: tokens of the answers and their ends, IGNORED elsewhere. Raises ConfigError for one that is too long.

        rows: of each picture, its facts.
        """
        texts = sorted({fact for facts in rows for fact in facts})
        ids = dict(zip(texts, tokenizer([f" {text}{END}" for text in texts]).input_ids, strict=True))
        said = torch.full((len(rows), len(self.ids)), IGNORED)
        for line, facts in zip(said.numpy(), rows, strict=True):
            for name, room, fact in zip(WIDTHS, self.rooms, facts, strict=True):
                if len(ids[fact]) > len(room):
                    raise ConfigError(
                        f"{fact!r} has {len(ids[fact])} tokens, {len(room)} fit under {name!r}",
                        "raise its width in facts.WIDTHS, or teach the tokenizer its words",
                    )
                line[room.start : room.start + len(ids[fact])] = ids[fact]
        return said

    def read(self, tokenizer: Qwen2Tokenizer, said: Tensor) -> list[list[str]]:
        """The facts of each row of tokens [n, L]: up to the first end, or all that there is room for."""
        parts = [said[:, room.start : room.stop].clamp(min=0) for room in self.rooms]
        texts = [[text.partition(END)[0].strip() for text in tokenizer.batch_decode(part)] for part in parts]
        return [list(row) for row in zip(*texts, strict=True)]

    def visible(self, before: int) -> Tensor:
        """[before + L, before + L], true where the row may look: back, and not into another question."""
        block = torch.cat([torch.full((before,), -1), self.block])
        same = (block[:, None] == block) | (block == -1)
        return same & torch.ones_like(same).tril()

"""Prompts as rows of token ids on the device, in the variants that the base is trained on."""

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL
from harald.config import Injection
from harald.data.description import GROUPS, Description, read, without
from harald.determinism import rng
from harald.errors import ConfigError

CLASS_WORD = Injection().class_word
NEGATIVE = " "  # what the pipeline's guidance is measured against; config.Generate says the same
VARIANTS = {"full": 0.45, "partial": 0.2, "state_free": 0.25, "negative": 0.1}  # shares of the training samples


class PromptIds:
    """ids: int64 [n, VARIANTS, head + length], padded on the right, for pictures as they come.

    length: of the prompt with the template's tail, what remains when the head's states are dropped.
    """

    def __init__(self, tokenizer: Any, pictures: int, length: int, seed: int, device: torch.device):
        self.tokenizer, self.seed, self.length = tokenizer, seed, length
        self.head = len(tokenizer(TEMPLATE_HEAD).input_ids)
        self.ids = torch.full(
            (pictures, len(VARIANTS), self.head + length), tokenizer.pad_token_id, dtype=torch.int32, device=device
        )
        self.lengths = torch.zeros(pictures, len(VARIANTS), dtype=torch.int32, device=device)
        sides = [tokenizer(f" {side}").input_ids for side in ("left", "right")]
        assert all(len(ids) == 1 for ids in sides), "each side is one token, which can stand for the other"
        self.left, self.right = sides[0][0], sides[1][0]
        self.count = 0

    def add(self, prompts: Sequence[tuple[str, str]]) -> None:
        """(full, state-free) texts of the next pictures. Raises ConfigError for one that is too long."""
        texts = [text for row, pair in enumerate(prompts) for text in self._variants(self.count + row, *pair)]
        rows = [encoding.ids for encoding in self._encode(texts)]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        width = self.ids.shape[2]
        if lengths.max() > width:
            longest = int(lengths.argmax())
            raise ConfigError(
                f"the prompt {texts[longest]!r} has {int(lengths.max()) - self.head} tokens",
                f"raise pretrain.prompt_tokens above {self.length}, or teach the tokenizer its words",
            )
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], dtype=torch.int32)
        end = self.count + len(prompts)
        self.ids[self.count : end] = ids.view(len(prompts), len(VARIANTS), width).to(self.ids.device)
        self.lengths[self.count : end] = lengths.view(len(prompts), len(VARIANTS)).to(self.ids.device)
        self.count = end

    def rows(self, picture: Tensor, variant: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
        """ids [b, head + length] and the mask of the states that remain, [b, length]. mirrored: bool [b], where left
        and right change places.
        """
        left = self.lengths[picture, variant] - self.head
        mask = torch.arange(self.length, device=picture.device) < left[:, None]
        ids, mirrored = self.ids[picture, variant].long(), mirrored[:, None]
        other = torch.where(ids == self.left, self.right, torch.where(ids == self.right, self.left, ids))
        return torch.where(mirrored, other, ids), mask

    def _variants(self, picture: int, full: str, state_free: str) -> tuple[str, str, str, str]:
        return full, partial(full, state_free, rng(self.seed, "partial", picture)), state_free, NEGATIVE

    def _encode(self, texts: list[str]) -> list:
        whole = [TEMPLATE_HEAD + text + TEMPLATE_TAIL for text in texts]
        return self.tokenizer.backend_tokenizer.encode_batch(whole, add_special_tokens=False)


def partial(full: str, state_free: str, draw: Random) -> str:
    """The full prompt without some of what it says about the person: single phrases, or whole groups (see
    data/description.py), the class word then standing for a person without a face. The words of the view all stay.
    """
    domain, _, view = state_free.partition(f" of {CLASS_WORD}")
    described = full.removeprefix(f"{domain} of ").removesuffix(view)
    if draw.random() < 0.5:
        dropped = {name for name in GROUPS if draw.random() < 0.5}
        kept = without(described, dropped, CLASS_WORD)
    else:
        said = read(described)
        parts = (tuple(p for p in part if draw.random() < 0.5) for part in (said.items, said.clothes))
        kept = str(Description(said.head, *parts))
    return f"{domain} of {kept}{view}"

"""The two injection points.

`output`: the prompt is encoded with a class word for the placeholder, the K tokens are inserted right after that
word's states. `input`: the placeholder becomes K input embeddings that run through the text encoder (literal Textual
Inversion, Gal et al. 2022, arXiv 2208.01618).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL
from harald.errors import PromptError
from harald.injection.prompt import Prompt


def plain(base: BaseModel, text: str) -> Tensor:
    """[t, d] states of a prompt without a person: bit-equal to the stock pipeline's."""
    return base.text_states(_embed(base, text)[None])[0]


def condition(base: BaseModel, prompt: Prompt, persons: Mapping[str, Tensor], point: str, class_word: str) -> Tensor:
    """[t + K, d] states for a prompt and the tokens [K, d] of each named person. No persons: the class word alone."""
    if not persons:
        return plain(base, prompt.with_word(class_word))
    return (at_output if point == "output" else at_input)(base, prompt, persons, class_word)


def at_output(base: BaseModel, prompt: Prompt, persons: Mapping[str, Tensor], class_word: str) -> Tensor:
    """Insert each person's tokens right after the states of the word that stands for them."""
    with torch.no_grad():
        states = plain(base, prompt.with_word(class_word))
    positions = word_ends(base, prompt, class_word)
    for name, position in reversed(list(zip(prompt.names, positions, strict=True))):
        states = insert(states, persons[name], position)
    return states


def insert(states: Tensor, tokens: Tensor, position: int) -> Tensor:
    """[t, d], [k, d] -> [t + k, d]: the tokens stand before states[position]."""
    return torch.cat([states[:position], tokens.to(states.device, states.dtype), states[position:]])


def at_input(base: BaseModel, prompt: Prompt, persons: Mapping[str, Tensor], class_word: str = "") -> Tensor:
    """Tokens take the place of the placeholder's embeddings. A space before the placeholder belongs to the tokens,
    as it belongs to a word in byte-level BPE."""
    texts = [text.removesuffix(" ") for text in prompt.texts[:-1]] + [prompt.texts[-1]]
    texts[0], texts[-1] = TEMPLATE_HEAD + texts[0], texts[-1] + TEMPLATE_TAIL
    rows = []
    for text, name in zip(texts, [*prompt.names, None], strict=True):
        if text:
            rows.append(base.word_embeddings(base.tokenize(text)))
        if name is not None:
            rows.append(persons[name].to(base.device, base.dtype))
    return base.text_states(torch.cat(rows)[None])[0]


def word_ends(base: BaseModel, prompt: Prompt, class_word: str) -> list[int]:
    """Index, in the prompt's states, after the last token of each class word. PromptError if no token ends there."""
    text = prompt.with_word(class_word)
    ids, ends = base.tokenize(text), []
    for _, end in prompt.spans(class_word):
        before = base.tokenize(text[:end])
        if ids[: len(before)] != before:
            raise PromptError(
                f"the placeholder runs into the next word: {text[: end + 8]!r}",
                "put a space or a comma after the placeholder",
            )
        ends.append(len(before))
    return ends


def _embed(base: BaseModel, text: str) -> Tensor:
    return base.word_embeddings(base.tokenize(TEMPLATE_HEAD + text + TEMPLATE_TAIL))


def calibration(base: BaseModel, texts: Sequence[str], point: str) -> Tensor:
    """[d] root mean square per channel of what the point expects: real prompt states, or the vocabulary's embeddings.

    Raw predictions with single channels off by hundreds of times are out of the generator's distribution; the
    connector's last norm starts from these statistics (MetaQuery, arXiv 2504.06256).
    """
    with torch.no_grad():
        if point == "input":
            rows = base.word_embeddings(sorted({token for text in texts for token in base.tokenize(text)}))
        else:
            rows = torch.cat([plain(base, text) for text in texts])
        return rows.float().square().mean(0).sqrt()

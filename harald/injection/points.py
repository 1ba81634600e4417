"""The injection points.

`output`: the prompt is encoded with a class word for the placeholder, the K tokens are inserted right after that
word's states. `input`: the placeholder becomes K input embeddings that run through the text encoder (literal Textual
Inversion, Gal et al. 2022, arXiv 2208.01618). `both`: each of the K tokens is two vectors [2 d], the first of which
enters as at the input point, so that the words after the person read it; the second stands in the place of what the
text encoder made of the first, so that the picture reads it as it was predicted.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from harald.base import BaseModel
from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL
from harald.injection.layout import Layout, lay_out
from harald.injection.prompt import Prompt


def plain(base: BaseModel, text: str) -> Tensor:
    """[t, d] states of a prompt without a person: bit-equal to the stock pipeline's."""
    return base.read(base.tokenize(TEMPLATE_HEAD + text + TEMPLATE_TAIL))


def condition(base: BaseModel, prompt: Prompt, persons: Mapping[str, Tensor], point: str, class_word: str) -> Tensor:
    """[t + K, d] states for a prompt and the tokens [K, d] ([K, 2 d] at both points) of each named person. No persons:
    the class word alone.
    """
    rows, start = {}, 0
    for name, tokens in persons.items():
        rows[name] = range(start, start := start + len(tokens))
    table = torch.cat([t.to(base.device) for t in persons.values()]) if persons else torch.empty(0, base.width)
    return conditioned(base, lay_out(base.tokenize, [(prompt, rows)], point, class_word), table)[0]


def conditioned(base: BaseModel, layout: Layout, tokens: Tensor) -> Tensor:
    """[b, l, d] states of the laid-out prompts; padding (see the layout's mask) means nothing. tokens: [n, d], or
    [n, 2 d] at both points.
    """
    embeddings = base.word_embeddings(layout.ids)
    if layout.both:
        first, second = tokens.chunk(2, dim=-1)
        states = base.text_states(_put(embeddings, layout, first))
        head = embeddings.shape[1] - states.shape[1]  # of the template: no state stands for it
        return _put(F.pad(states, (0, 0, head, 0)), layout, second)[:, head:]
    if layout.order is None:
        return base.text_states(_put(embeddings, layout, tokens))
    with torch.no_grad():
        states = base.text_states(embeddings)
    return _put(states.take_along_dim(layout.order.to(states.device)[..., None], 1), layout, tokens)


def _put(states: Tensor, layout: Layout, tokens: Tensor) -> Tensor:
    """[b, l, d] with the tokens where the layout wants them."""
    if not len(layout.put):
        return states
    rows = tokens.to(states)[layout.take.to(states.device)]
    flat = F.pad(states.flatten(0, 1), (0, 0, 0, 1))  # the last row is nowhere
    return flat.index_put((layout.put.to(states.device),), rows)[:-1].view_as(states)


def insert(states: Tensor, tokens: Tensor, position: int) -> Tensor:
    """[t, d], [k, d] -> [t + k, d]: the tokens stand before states[position]."""
    return torch.cat([states[:position], tokens.to(states.device, states.dtype), states[position:]])


def calibration(base: BaseModel, texts: Sequence[str], point: str) -> Tensor:
    """[d] root mean square per channel of what the point expects: real prompt states, or the vocabulary's embeddings;
    [2 d] at both points: embeddings, then states.

    Raw predictions with single channels off by hundreds of times are out of the generator's distribution; the
    connector's last norm starts from these statistics (MetaQuery, arXiv 2504.06256).
    """
    if point == "both":
        return torch.cat([calibration(base, texts, end) for end in ("input", "output")])
    with torch.no_grad():
        if point == "input":
            rows = base.word_embeddings(torch.tensor(sorted({i for text in texts for i in base.tokenize(text)})))
        else:
            rows = torch.cat([plain(base, text) for text in texts])
        return rows.float().square().mean(0).sqrt()

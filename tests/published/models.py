"""The published models on the meta device: real classes, real configurations, no memory.

`python -m tests.published.models` writes the layouts (harald/published/data/**/layout.json) anew.
"""

import functools
import json
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from harald.published.checkpoint import layout_of
from harald.published.facts import PUBLISHED, Part, Published

MODELS = [(published, part) for published in PUBLISHED.values() for part in published.parts if part.parameters]


@functools.cache
def empty(published: Published, part: Part) -> Any:
    """The model as its class builds it from the published configuration."""
    raw = published.config(part)
    with torch.device("meta"):
        if hasattr(diffusers, part.kind):
            return getattr(diffusers, part.kind).from_config(raw)
        model_class = getattr(transformers, part.kind)
        return model_class._from_config(model_class.config_class.from_dict(raw))


def stored(model: nn.Module) -> dict[str, Tensor]:
    """Name -> tensor as the library writes them into a checkpoint: old names where the published ones are old, and
    memory that two names share only once."""
    names = model.state_dict()
    if isinstance(model, transformers.PreTrainedModel):
        if model.config.tie_word_embeddings:
            del names["lm_head.weight"]
        names = revert_weight_conversion(model, names)
    return names


def layout(published: Published, part: Part) -> dict[str, Any]:
    return layout_of((name, tensor.shape) for name, tensor in stored(empty(published, part)).items())


if __name__ == "__main__":
    for published, part in MODELS:
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(kind)}" for name, kind in layout(published, part).items())
        (published.home / part.folder / "layout.json").write_text(f"{{\n{lines}\n}}\n")

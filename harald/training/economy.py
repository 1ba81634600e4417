"""What of a step is computed again, compiled or in float8, as train.economy says."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint

from harald.base.compiled import SAME_TWICE, compiled, compiled_forward
from harald.base.float8 import to_float8
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.encoder.model import PersonEncoder

# Nothing here draws random numbers, and asking for their state cannot be recorded.
again_later = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)


@contextmanager
def economical(base: QwenImage, encoder: PersonEncoder, config: Config, backend: Any = None) -> Iterator[None]:
    """Inside, steps of training cost what train.economy says. What is in float8 afterwards stays so."""
    economy = config.train.economy
    if economy.frozen != "plain":
        twice = economy.frozen == "float8"
        to_float8(base.transformer.transformer_blocks, twice)
        to_float8(encoder.vlm.language_model, twice)
        if not twice:  # for its bytes: it is not compiled, and eager its scales take longer than the products save
            to_float8(base.text_model, False)
            base.texts.clear()  # they were read in bfloat16
    with ExitStack() as inside:
        encoder.autocast = economy.lora == "autocast"
        inside.callback(setattr, encoder, "autocast", False)
        if economy.compile != "off":
            fusions = SAME_TWICE if economy.compile == "same_twice" else {}
            inside.enter_context(compiled(base.transformer, fusions, backend))
            inside.enter_context(compiled_forward(encoder.vlm.language_model.layers, fusions, backend))
        inside.enter_context(recomputing(base, encoder, economy.recompute_base, economy.recompute_encoder))
        yield


@contextmanager
def recomputing(base: QwenImage, encoder: PersonEncoder, share: float, reading: bool) -> Iterator[None]:
    """Inside, the backward pass computes activations again: of this share of the base model's blocks, the first ones,
    and of the encoder's language model if `reading`. It changes no bit.
    """
    transformer, layers = base.transformer, encoder.vlm.language_model.layers if reading else []
    blocks = list(transformer.transformer_blocks)
    again = {id(block) for block in blocks[: round(share * len(blocks))]}

    def call(block: Any, *inputs: Any) -> Any:
        return again_later(block, *inputs) if id(block) in again else block(*inputs)

    if again:
        transformer.enable_gradient_checkpointing(call)
    own = [vars(layer).get("forward") for layer in layers]
    for layer in layers:  # around what is compiled, and within hooks: the library's own way is neither in all versions
        vars(layer)["forward"] = partial(again_later, layer.forward)
    try:
        yield
    finally:
        transformer.disable_gradient_checkpointing()
        for layer, forward in zip(layers, own, strict=True):
            del vars(layer)["forward"]
            vars(layer).update({} if forward is None else {"forward": forward})

"""How strongly a person acts on a picture: guidance between the velocity without and with the person.

Scaling the tokens would do nothing at the output point, because the MMDiT normalises every prompt state.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


@contextlib.contextmanager
def strengthened(transformer: nn.Module, person: Tensor, text: Tensor, strength: float) -> Iterator[None]:
    """Inside, the velocity for the states `person` [t + K, d] is v_text + strength * (v_person - v_text).

    v_text is the velocity for the states `text` [t, d], at the price of a second forward pass. Velocities for other
    states (the negative prompt's) stay as they are, so that the pipeline's own guidance works on top.
    Source of the form: classifier-free guidance, Ho and Salimans 2022, arXiv 2207.12598.
    """

    def guide(module: nn.Module, args: tuple, options: dict[str, Any], output: tuple[Tensor, ...]) -> Any:
        states = options["encoder_hidden_states"]
        if states.shape[1:] != person.shape or not torch.equal(states[0], person.to(states)):
            return None
        plain = text.to(states).expand(len(states), -1, -1)
        without = options | {"encoder_hidden_states": plain, "encoder_hidden_states_mask": None}
        cached = getattr(module, "is_cache_enabled", False)
        with module.cache_context("text") if cached else contextlib.nullcontext():  # type: ignore[not-callable]
            v_text = module.forward(*args, **without)[0]
        return (v_text + strength * (output[0] - v_text), *output[1:])

    hook = transformer.register_forward_hook(guide, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()

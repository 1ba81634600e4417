"""Models compiled block by block: one block is compiled, all use it (regional compilation).

Sizes are fixed but for the length of the text, for which the code is general: a prompt has any length. What is general
is compiled at one certain length, so that it does not depend on which prompt came first.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.transformers import transformer_qwenimage as stock
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch._dynamo import config as dynamo

from harald.base.text_mask import masked_by_channel, no_lengths, replaced

Fusions = dict[str, Any]  # Inductor's options; none: all fusions, kernels chosen by the clock
# All fusions: frozen blocks had the same bytes twice with them (PyTorch 2.11, H200, bfloat16). No clock chooses.
SAME_TWICE: Fusions = {"deterministic": True}
# Where the blocks' own weights are trained, fused kernels give other gradients in every call (the same machine); these
# do not.
ONE_BY_ONE: Fusions = {
    **SAME_TWICE, "max_fusion_size": 1, "epilogue_fusion": False, "aggressive_fusion": False,
    "triton.mix_order_reduction": False,
}  # fmt: skip
BACKEND = "inductor"  # tests take another one: what Inductor makes of it is for a GPU
LENGTH = 192  # of the text that the blocks are compiled at
ATTEND = masked_by_channel(stock.dispatch_attention_fn)
VARIANTS = 256  # of one block: sizes of batch and picture, with and without gradients, adapters on and off


def rotate(x: Tensor, freqs_cis: Tensor, use_real: bool = False) -> Tensor:
    """diffusers' apply_rotary_emb_qwen without complex numbers, for which Inductor has no code.

    x: [b, s, h, d]; freqs_cis: [s, d / 2, 2], cosine and sine.
    """
    assert not use_real, "the Qwen processor asks for the complex form"
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = freqs_cis[:, None, :, 0], freqs_cis[:, None, :, 1]
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], -1).flatten(3).type_as(x)


@contextmanager
def recordable(transformer: Any, turn: Callable[..., Tensor] = rotate) -> Iterator[None]:
    """Inside, the transformer can be compiled and recorded: real rotary embeddings (the same numbers to float32
    rounding) and nothing from the host.
    """
    # Copies: as parts of the library's tables they would begin at another place for every size, and be compiled anew.
    hook = transformer.pos_embed.register_forward_hook(
        lambda module, inputs, output: tuple(torch.view_as_real(freqs).clone() for freqs in output)
    )
    try:
        with no_lengths(), replaced(apply_rotary_emb_qwen=turn):
            yield
    finally:
        hook.remove()


@contextmanager
def compiled(transformer: Any, fusions: Fusions = SAME_TWICE, backend: Any = None) -> Iterator[None]:
    """Inside, the MMDiT's blocks are compiled; outside they are as they were, and what was compiled is kept for the
    next time. fusions: by default without those that give other bits in every call.
    """
    with (
        recordable(transformer),
        replaced(dispatch_attention_fn=ATTEND),
        compiled_forward(transformer.transformer_blocks, fusions, backend) as calls,
    ):
        first = _kept(transformer, _key(fusions, backend), lambda: First(transformer, calls[:2]))
        hook = transformer.register_forward_pre_hook(first, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def compiled_forward(
    blocks: Iterable[nn.Module], fusions: Fusions = SAME_TWICE, backend: Any = None
) -> Iterator[list[Callable[..., Any]]]:
    """Inside, these modules of one class run compiled, their hooks as they are. Gives what computes each of them."""
    backend = backend or BACKEND
    options: Any = dict(fusions) if fusions and backend == "inductor" else None
    compile_it = torch.compile(dynamic=False, backend=backend, options=options)
    blocks = list(blocks)
    calls = [_kept(block, _key(fusions, backend), lambda block=block: compile_it(block.forward)) for block in blocks]
    for block, call in zip(blocks, calls, strict=True):
        assert "forward" not in vars(block), "compiled already, or with hooks of diffusers: those go around"
        vars(block)["forward"] = call
    try:
        with dynamo.patch(recompile_limit=VARIANTS, accumulated_recompile_limit=16 * VARIANTS):
            yield calls
    finally:
        for block in blocks:
            del vars(block)["forward"]


def _key(fusions: Fusions, backend: Any) -> Any:
    return tuple(sorted(fusions.items())), backend or BACKEND


def _kept(module: nn.Module, key: Any, made: Callable[[], Any]) -> Any:
    """What belongs to this very module (a copy of it begins anew)."""
    owner, kept = vars(module).get("_harald_kept", (None, {}))
    if owner != id(module):
        kept = {}
        vars(module)["_harald_kept"] = id(module), kept
    if key not in kept:
        kept[key] = made()
    return kept[key]


class First:
    """Before a call of a new kind the first two blocks are called with a text of LENGTH, and learn that a text has any:
    two, because pictures lead to the text's gradient below the first one only.
    """

    def __init__(self, transformer: Any, calls: list[Callable[..., Any]]):
        self.calls, self.seen = calls, set[Any]()  # calls: what computes the two blocks, without their hooks
        self.adapters: list[Any] = [m for m in transformer.modules() if isinstance(m, BaseTunerLayer)][:1]

    def __call__(self, transformer: Any, args: tuple, options: dict[str, Any]) -> None:
        latents, states, mask = options[NAMES[0]], options[NAMES[1]], options.get(NAMES[2])
        grad = torch.is_grad_enabled() and (states.requires_grad, latents.requires_grad)
        adapters = [(m.disable_adapters, tuple(m.active_adapters), str(m.scaling)) for m in self.adapters]
        kind = (latents.shape, latents.dtype, str(options["img_shapes"]), mask is None, grad, str(adapters))
        if kind in self.seen:
            return
        text = states.new_zeros(len(states), LENGTH, states.shape[2]).requires_grad_(states.requires_grad)
        whole = None if mask is None else mask.new_ones(len(mask), LENGTH)
        recompute, transformer.gradient_checkpointing = transformer.gradient_checkpointing, False
        before = vars(transformer).get("transformer_blocks")
        vars(transformer)["transformer_blocks"] = [_any_length(call) for call in self.calls]  # before its own
        try:
            type(transformer).forward(transformer, **options | dict(zip(NAMES, (latents, text, whole), strict=True)))
        finally:
            transformer.gradient_checkpointing = recompute
            del vars(transformer)["transformer_blocks"]
            vars(transformer).update({} if before is None else {"transformer_blocks": before})
        self.seen.add(kind)


NAMES = ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask")


def _any_length(block: Callable[..., Any]) -> Callable[..., Any]:
    def call(**named: Any) -> Any:
        torch._dynamo.maybe_mark_dynamic(named["encoder_hidden_states"], 1)
        torch._dynamo.maybe_mark_dynamic(named["image_rotary_emb"][1], 0)
        if named["encoder_hidden_states_mask"] is not None:
            torch._dynamo.maybe_mark_dynamic(named["encoder_hidden_states_mask"], 1)
        return block(**named)

    return call

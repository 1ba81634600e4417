"""Ablation: harald's command line with a small LoRA on the base model's MMDiT, trained beside the encoder.

    LORA_RANK=8 python tests/ablations/mmdit_lora.py train    --preset mini --run-name NAME ...
    LORA_RANK=8 python tests/ablations/mmdit_lora.py evaluate --preset mini --train-run NAME ...

from the repository's root; the flags are those of `python -m harald`. LORA_RANK (default 8): 0, or another job than
these two, patches nothing.

The encoder holds the LoRA's very parameters (`base_lora.*`), so that they are trained, clipped, saved, resumed and
loaded as its own. It is ON where the base model is asked with a person's tokens: for the student's velocity and for
every picture of such a prompt (its negative branch too), and OFF for the teacher and for whatever has no tokens.
"""

import functools
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # workers run this file as well: nothing heavy up here

log = logging.getLogger("harald.mmdit_lora")

NAME, HELD, SEED = "person", "base_lora", 0
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
PLACE = re.compile(rf"transformer_blocks\.(\d+)\.attn\.({'|'.join(map(re.escape, PROJECTIONS))})")


def holder(tensors: dict[str, Any]) -> Any:
    """'transformer_blocks.<n>.<projection>_<A or B>' -> tensor, as a module with these parameters, float32.

    By these names muon.HIDDEN knows them for matrices of hidden layers, as it does the encoder's LoRA.
    """
    from torch import nn

    blocks: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        _, number, key = name.split(".")
        blocks.setdefault(int(number), {})[key] = nn.Parameter(tensor.float())
    held = nn.Module()
    held.transformer_blocks = nn.ModuleList(nn.ParameterDict(blocks[number]) for number in range(len(blocks)))
    return held


class Adapter:
    """The LoRA in the base model's transformer, off but inside `switched(True)`.

    held: the parameters of an encoder that was loaded; None: new ones, A gaussian as in peft, B zero.
    """

    def __init__(self, transformer: Any, rank: int, held: Any = None):
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=PLACE.pattern, init_lora_weights=False)
        with torch.random.fork_rng():
            inject_adapter_in_model(config, transformer, adapter_name=NAME)
        self.layers = {
            f"transformer_blocks.{found[1]}.{found[2].replace('.', '_')}": module
            for name, module in transformer.named_modules()
            if (found := PLACE.fullmatch(name))
        }
        blocks = len(transformer.transformer_blocks)
        assert len(self.layers) == blocks * len(PROJECTIONS), sorted(self.layers)
        self.held = held or holder(self._fresh(rank, transformer.device))
        parameters = dict(self.held.named_parameters())
        assert len(parameters) == 2 * len(self.layers)
        for name, layer in self.layers.items():
            for matrix in "AB":
                linear, own = getattr(layer, f"lora_{matrix}")[NAME], parameters[f"{name}_{matrix}"]
                assert linear.weight.shape == own.shape and linear.bias is None, name
                linear.weight = own.requires_grad_(True)
        self.next = False  # for the next call of `velocity`
        self._set(False)
        count = sum(p.numel() for p in parameters.values())
        log.info("LoRA of rank %d on %d projections of the base model: %d weights", rank, len(self.layers), count)

    def _fresh(self, rank: int, device: Any) -> dict[str, Any]:
        import torch

        draws, tensors = torch.Generator().manual_seed(SEED), {}
        for name, layer in self.layers.items():
            linear = layer.get_base_layer()
            tensors[f"{name}_A"] = (torch.randn(rank, linear.in_features, generator=draws) / rank).to(device)
            tensors[f"{name}_B"] = torch.zeros(linear.out_features, rank, device=device)
        return tensors

    def _set(self, on: bool) -> None:
        """Not by peft's `enable_adapters`, which takes the gradient from what it switches off."""
        self.on = on
        for layer in self.layers.values():
            layer._disable_adapters = not on

    @contextmanager
    def switched(self, on: bool) -> Iterator[None]:
        before = self.on
        self._set(on)
        try:
            yield
        finally:
            self._set(before)


def speaks(layout: Any) -> bool:
    """Whether tokens stand in the prompts. Under gradients always: `check` refuses to drop all of a prompt's, and a
    recording may not look at numbers on the device.
    """
    import torch

    if torch.is_grad_enabled():
        return True
    places = layout.ids if layout.order is None else layout.order
    return bool((layout.put < places.numel()).any())  # where steps are recorded, the rest of the room goes nowhere


def check(config: Any, gpus: int, hosts: int) -> None:
    from harald.errors import TrainingError

    train, economy = config.train, config.train.economy
    bad = {
        "--gpus or --hosts": gpus * hosts != 1,  # other processes are not patched
        "train.drop_references": train.drop_references > 0,  # prompts with and without tokens in one call
        "train.economy.recompute_base": economy.recompute_base > 0,  # the switch is off again in the backward pass
        "train.economy.targets_at_once": economy.targets_at_once > 0,  # only the tokens' gradient comes back
        "train.economy.frozen": economy.frozen != "plain",
        "train.economy.compile": economy.compile != "off",
        "models.lora": bool(config.models.lora.source),
    }
    if odd := [name for name, wrong in bad.items() if wrong]:
        raise TrainingError(f"the LoRA ablation cannot do with {', '.join(odd)}", "leave these at preset mini's values")


def install(rank: int) -> None:
    """Into this process, for train and evaluate."""
    import harald.jobs.evaluate
    import harald.jobs.train
    from harald.base.qwen_image import QwenImage
    from harald.encoder.model import PersonEncoder
    from harald.errors import ModelError
    from harald.evaluation import drawing
    from harald.evaluation.arms import IDENTITY
    from harald.training import step

    jobs, found, lenient = harald.jobs.train, [], [False]  # found: the holder of a loaded encoder

    # ---- the base model has it, and the encoder holds it, whichever of the two comes first
    def load(cls: Any, *args: Any, **options: Any) -> Any:
        base = original_load(cls, *args, **options)
        if base.lora is not None:
            raise ModelError("the base model has a LoRA for a domain", "leave models.lora empty in this ablation")
        base.person = Adapter(base.transformer, rank, found[0] if found else None)
        return base

    def new_encoder(cache: Path, config: Any, base: Any) -> Any:
        encoder = original_new_encoder(cache, config, base)
        setattr(encoder, HELD, base.person.held)
        return encoder

    def load_trained_state(self: Any, state: dict[str, Any]) -> None:
        own = {name: tensor for name, tensor in state.items() if name.startswith(f"{HELD}.")}
        if own and not hasattr(self, HELD):
            if found:
                raise ModelError("two encoders bring a LoRA for one base model", "leave out --identity-run")
            sizes = {tensor.shape[0] for name, tensor in own.items() if name.endswith("_A")}
            if sizes != {rank}:
                raise ModelError(f"the encoder's LoRA has rank {sizes}, LORA_RANK is {rank}", "set LORA_RANK to that")
            made = holder({name.removeprefix(f"{HELD}."): tensor.clone() for name, tensor in own.items()})
            setattr(self, HELD, made.to(self.device))
            found.append(getattr(self, HELD))
        elif not own and lenient[0]:
            log.info("the weights that this training begins with have no LoRA: its own begins without effect")
            state = state | {n: t for n, t in self.trained_state().items() if n.startswith(f"{HELD}.")}
        elif not own and not hasattr(self, HELD):
            log.warning("this encoder brings no LoRA: the base model draws for it as it is")
        original_state(self, state)

    def begin(*args: Any) -> None:
        lenient[0] = True
        try:
            original_begin(*args)
        finally:
            lenient[0] = False

    original_load, original_new_encoder = QwenImage.load.__func__, jobs.new_encoder
    original_state, original_begin = PersonEncoder.load_trained_state, jobs.begin
    QwenImage.load = classmethod(functools.wraps(original_load)(load))
    PersonEncoder.load_trained_state = load_trained_state
    jobs.new_encoder, jobs.begin = new_encoder, begin

    # ---- on and off
    def velocity(self: Any, *args: Any, **options: Any) -> Any:
        on, self.person.next = self.person.next, False
        with self.person.switched(on):
            return original_velocity(self, *args, **options)

    def target_losses(base: Any, tokens: Any, targets: Any, config: Any) -> Any:
        base.person.next = speaks(targets.layout)  # the student is asked first, then the teacher
        try:
            return original_losses(base, tokens, targets, config)
        finally:
            base.person.next = False

    def draw(base: Any, prompt: Any, persons: Any, *args: Any, **options: Any) -> Any:
        with base.person.switched(bool(persons)):
            return original_draw(base, prompt, persons, *args, **options)

    def draw_some(base: Any, requests: list, *args: Any) -> list:
        pictures = {}
        for on in (False, True):
            some = [one for one in requests if bool(one.tokens and not one.tokens.startswith(f"{IDENTITY}/")) == on]
            if some:
                with base.person.switched(on):
                    pictures |= dict(zip(some, original_some(base, some, *args), strict=True))
        return [pictures[one] for one in requests]

    original_velocity, original_losses = QwenImage.velocity, step.target_losses
    original_draw, original_some = jobs.draw, drawing._draw
    QwenImage.velocity, step.target_losses = velocity, target_losses
    jobs.draw, drawing._draw = draw, draw_some

    # ---- what cannot be is refused, and a run keeps its rank
    def check_processes(config: Any, cluster: Any, gpus: int, hosts: int) -> None:
        check(config, gpus, hosts)
        original_check(config, cluster, gpus, hosts)

    def origin(*args: Any) -> dict[str, Any]:
        return original_origin(*args) | {"lora_rank": rank}

    def identity_only(*args: Any) -> Any:
        encoder, name = original_rival(*args)
        if encoder is not None and hasattr(encoder, HELD):
            raise ModelError("the encoder of --identity-run brings a LoRA", "train that one with LORA_RANK=0")
        return encoder, name

    original_check, original_origin = jobs.check_processes, jobs.origin
    original_rival = harald.jobs.evaluate.identity_only
    jobs.check_processes, jobs.origin = check_processes, origin
    harald.jobs.evaluate.identity_only = identity_only


def main() -> None:
    from harald.cli import main as command_line

    rank = int(os.environ.get("LORA_RANK", "8"))
    if rank < 0:
        sys.exit(f"LORA_RANK is {rank}")
    if rank and sys.argv[1:2] in (["train"], ["evaluate"]):
        install(rank)
    command_line()


if __name__ == "__main__":
    main()

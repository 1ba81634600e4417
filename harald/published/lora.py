"""Which modules a LoRA file for Qwen-Image changes, from its header alone."""

from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImagePipeline
from safetensors import safe_open
from torch import Tensor, nn


def misfits(file: Path, transformer: nn.Module) -> list[str]:
    """What of the file does not fit the transformer (which may lie on the meta device), in words.

    diffusers itself leaves out what it does not recognise, with a warning or with none. Raises SafetensorError.
    """
    tensors = _named(file)
    reader: Any = QwenImagePipeline  # the library's annotations do not know its own decorators
    example = next(iter(sorted(tensors)), "nothing")
    try:
        converted = reader.lora_state_dict(tensors)
    except ValueError as error:
        return [f"diffusers cannot read its names, such as {example}: {str(error)[:120]}"]
    read = {name.removeprefix("transformer."): t for name, t in converted.items() if name.startswith("transformer.")}
    if not read:
        return [
            f"diffusers recognises none of its names, such as {example}: they must begin with 'transformer.', "
            "'diffusion_model.' or 'lora_unet_transformer_blocks_'"
        ]
    sides = {name: module.weight.shape for name, module in transformer.named_modules() if isinstance(module, nn.Linear)}
    targets = {name: name.split(".lora_")[0] for name in read}
    if absent := sorted({target for target in targets.values() if target not in sides}):
        return [f"{len(absent)} of its {len(set(targets.values()))} modules do not exist, first {absent[0]}"]
    wrong = sorted(name for name, target in targets.items() if not _fits(name, read[name], sides[target]))
    return [f"{len(wrong)} of its tensors have other sizes than the model, first {wrong[0]}"] if wrong else []


def _fits(name: str, tensor: Tensor, side: torch.Size) -> bool:
    """lora_A is [rank, in], lora_B [out, rank] for a weight of [out, in]."""
    return tensor.shape[1] == side[1] if ".lora_A." in name else tensor.shape[0] == side[0]


def _named(file: Path) -> dict[str, Tensor]:
    """The file's tensors without their values, but for the scales that are read while names are converted."""
    with safe_open(file, framework="pt") as header:
        return {
            name: header.get_tensor(name)
            if name.endswith(".alpha")
            else torch.empty(header.get_slice(name).get_shape(), device="meta")
            for name in header.keys()  # noqa: SIM118 (not a mapping)
        }

"""How a picture is drawn: as the stock pipeline does it, compiled, in float8 with a block cache, or in few steps."""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, FlowMatchEulerDiscreteScheduler
from diffusers.hooks import apply_group_offloading

from harald import hub
from harald.base.compiled import SAME_TWICE, compiled
from harald.base.float8 import to_float8
from harald.base.recording import replayed
from harald.config import FewSteps, Generate, LoraRef, Speed

log = logging.getLogger(__name__)

DISTILLED = "few_steps"


@dataclass(frozen=True)
class Drawing:
    """What of `generate` changes a model. few: for speed "lightning"; same_twice: compiled kernels give the same bytes
    in every call.
    """

    speed: Speed = "eager"
    threshold: float = 0.1
    offload: str = "none"
    few: FewSteps | None = None
    same_twice: bool = True

    @classmethod
    def of(cls, generate: Generate, few: FewSteps | None, same_twice: bool) -> "Drawing":
        few = few if generate.speed == "lightning" else None
        return cls(generate.speed, generate.cache_threshold, generate.offload, few, same_twice)

    def schedule(self, steps: int, guidance: float) -> tuple[int, float]:
        """Steps and guidance: a distilled model needs its own number, and no guidance."""
        return (self.few.steps, 1.0) if self.few else (steps, guidance)

    @contextlib.contextmanager
    def around(self, transformer: Any) -> Iterator[None]:
        """Inside, the transformer draws at this speed."""
        if self.speed == "eager":
            yield
            return
        fast = self.speed == "fast"  # its cache looks at a number between two blocks
        recorded = transformer.transformer_blocks if fast else [transformer]
        with compiled(transformer, SAME_TWICE if self.same_twice else {}), replayed(recorded, transformer.device):
            if not fast:
                yield
                return
            transformer.enable_cache(FirstBlockCacheConfig(threshold=self.threshold))
            try:
                yield
            finally:
                transformer._reset_stateful_cache()  # its tensors, which the hooks keep in cycles
                transformer.disable_cache()


EAGER = Drawing()


def few_steps(pipeline: Any, cache: Path, few: FewSteps) -> None:
    """Put the LoRA into the weights, and its schedule into the pipeline. Raises ModelError if it is not in the cache.

    Source of the schedule: the card of lightx2v/Qwen-Image-Lightning (shift 3 for every size, not stretched to an end).
    """
    hub.load_lora(pipeline, cache, LoraRef(few.source, few.weight_name, few.revision), DISTILLED)
    pipeline.fuse_lora(components=["transformer"], lora_scale=few.scale, adapter_names=[DISTILLED])
    pipeline.unload_lora_weights()
    shift = math.log(few.shift)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        pipeline.scheduler.config, base_shift=shift, max_shift=shift, shift_terminal=None, use_dynamic_shifting=True,
        time_shift_type="exponential",
    )  # fmt: skip


def place(pipeline: Any, drawing: Drawing, device: torch.device) -> None:
    """The pipeline's weights, loaded on the host, where they are needed; in float8 one layer after another."""
    if drawing.speed == "fast":
        log.info("%d layers in float8", to_float8(pipeline.transformer.transformer_blocks, False, device))
    if drawing.offload == "none":
        pipeline.to(device)
        return
    host, beside = torch.device("cpu"), device.type == "cuda"  # the next weights travel while the device computes
    apply_group_offloading(
        pipeline.text_encoder.model, device, host, "leaf_level", use_stream=beside, record_stream=beside
    )
    pipeline.vae.to(device)
    if drawing.offload == "blocks":
        pipeline.transformer.enable_group_offload(
            device, host, "block_level", num_blocks_per_group=1, use_stream=beside, record_stream=beside
        )
    else:
        pipeline.transformer.to(device)

"""A picture: ours with and without a person, the stock pipeline, and the edit pipeline with the person's pictures."""

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline, QwenImagePipeline
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, Qwen2Tokenizer, Qwen2VLImageProcessorPil

from harald.base.float8 import to_float8
from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing
from harald.benchmark.bars import EDIT, NOTHING, PERSON, able, compiles, ratio, row
from harald.benchmark.bars import EXACT as EXACT_BAR
from harald.benchmark.bars import FAST as FAST_BAR
from harald.benchmark.bench import Bench, Measured
from harald.benchmark.clock import at_steps, in_turn
from harald.config import Config
from harald.data.images import load_picture, within_pixels
from harald.encoder.model import PersonEncoder
from harald.injection.points import condition, plain
from harald.injection.prompt import ANY, parse

PROMPT = "photo of <person>, portrait, laughing, facing the camera, on a beach at dusk, warm light from the left"
STOCK, NOBODY, EXACT = "stock pipeline", "ours, nobody", "ours, nobody, compiled (exact)"
FLOAT8, FAST = "ours, nobody, compiled, float8", "ours, nobody, compiled, float8, block cache (fast)"
LIGHTNING = "ours, nobody, compiled, 8 steps without guidance (lightning)"
TWO, BATCHED = "velocity, two calls, compiled", "velocity, one call of two with a mask, compiled"
PERSON_ARM, EDIT_ARM = "ours, person, compiled, pictures: ", "edit pipeline, pictures: "
REFERENCES, EDITS = (1, 2, 3, 4, 8), (1, 2, 3)
STEPS, EDIT_STEPS = (2, 10), (2, 4)  # that are drawn; a picture of more is calculated from both


def person_arm(references: int) -> str:
    return f"{PERSON_ARM}{references}"


def edit_arm(references: int) -> str:
    return f"{EDIT_ARM}{references}"


class Pictures:
    """One picture each, prompt and references read anew every time. light: the same base model with a transformer whose
    large layers are in float8; both share the rest.
    """

    def __init__(self, base: QwenImage, encoder: PersonEncoder, references: Sequence[Image.Image], config: Config):
        self.base, self.encoder, self.config = base, encoder, config
        self.references = [within_pixels(picture, config.encoder.max_pixels) for picture in references]
        self.prompt = parse(PROMPT)
        self.light = in_float8(base)

    def arms(self) -> dict[str, Callable[[int], Any]]:
        """Name -> a picture of so many steps."""
        exact, float8 = Drawing("exact"), Drawing("exact")
        return {
            STOCK: self.stock,
            NOBODY: lambda steps: self.ours(steps, Drawing()),
            EXACT: lambda steps: self.ours(steps, exact),
            **{person_arm(n): lambda steps, n=n: self.ours(steps, exact, n) for n in REFERENCES},
            **{edit_arm(n): lambda steps, n=n: self.edited(n, steps) for n in EDITS},
            FLOAT8: lambda steps: self.ours(steps, float8, base=self.light),
        }

    def whole_arms(self) -> dict[str, Callable[[], Any]]:
        """Pictures of all steps: what a step costs depends on the one before, or there are few."""
        g, exact = self.config.generate, Drawing("exact")
        fast = Drawing("fast", g.cache_threshold)
        return {
            FAST: lambda: self.ours(g.steps, fast, base=self.light),
            LIGHTNING: lambda: self.ours(8, exact, guidance=1.0),
        }

    @contextlib.contextmanager
    def negative_arms(self) -> Iterator[dict[str, Callable[[], Any]]]:
        """Inside: the two velocities of guidance, one after the other and together."""
        g, base = self.config.generate, self.base
        states, negative = plain(base, self.prompt.with_word("person")), plain(base, g.negative_prompt)
        both = torch.nn.utils.rnn.pad_sequence([states, negative], batch_first=True)
        mask = torch.arange(both.shape[1], device=base.device) < torch.tensor(
            [[len(states)], [len(negative)]], device=base.device
        )
        (tokens, channels), _ = base.latent_shape(g.size)
        noise = torch.randn(1, tokens, channels, generator=torch.Generator().manual_seed(0)).to(base.device)
        t = torch.full((1,), 0.5, device=base.device)

        @torch.no_grad()
        def two() -> Tensor:
            return torch.cat([base.velocity(noise, t, one[None], g.size) for one in (states, negative)])

        @torch.no_grad()
        def one() -> Tensor:
            return base.velocity(noise.expand(2, -1, -1), t.expand(2), both, g.size, mask)

        with Drawing("exact").around(base.transformer):
            yield {TWO: two, BATCHED: one}

    def stock(self, steps: int) -> Any:
        g = self.config.generate
        return self.base.pipeline(
            prompt=self.prompt.with_word(self.config.injection.class_word), negative_prompt=g.negative_prompt,
            true_cfg_scale=g.guidance, height=g.size, width=g.size, num_inference_steps=steps,
            generator=torch.Generator("cpu").manual_seed(0),
        ).images  # fmt: skip

    @torch.no_grad()
    def ours(
        self, steps: int, drawing: Drawing, pictures: int = 0, base: QwenImage | None = None, guidance: float = 0.0
    ) -> Image.Image:
        """pictures: of the person, 0 for nobody; guidance: 0 for that of the configuration."""
        base, g, injection = base or self.base, self.config.generate, self.config.injection
        persons = {ANY: self.encoder([self.references[:pictures]])[0]} if pictures else {}
        states = condition(base, self.prompt, persons, injection.point, injection.class_word)
        before, base.drawing = base.drawing, drawing
        try:
            negative = plain(base, g.negative_prompt)
            return base.draw(states, negative, [0], g.size, steps, guidance or g.guidance)[0]
        finally:
            base.drawing = before

    def edited(self, count: int, steps: int) -> Any:
        """With the same transformer, text encoder and VAE: Qwen-Image-Edit has their shapes."""
        g = self.config.generate
        return self.edit_pipeline()(
            image=self.references[:count], prompt=self.prompt.with_word("the person"),
            negative_prompt=g.negative_prompt, true_cfg_scale=g.guidance, height=g.size, width=g.size,
            num_inference_steps=steps, generator=torch.Generator("cpu").manual_seed(0),
        ).images  # fmt: skip

    def edit_pipeline(self) -> Any:
        parts = self.base.pipeline.components
        vision = parts["text_encoder"].config.vision_config
        pictures = Qwen2VLImageProcessorPil(patch_size=vision.patch_size, merge_size=vision.spatial_merge_size)
        processor: Any = Processor(pictures, parts["tokenizer"])
        pipeline: Any = QwenImageEditPlusPipeline(**parts, processor=processor)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


@dataclass(frozen=True)
class Processor:
    """What transformers' Qwen2_5_VLProcessor does with pictures and text; that one needs torchvision, for videos."""

    pictures: Qwen2VLImageProcessorPil
    tokenizer: Qwen2Tokenizer

    def __call__(self, text: list[str], images: Any, **options: Any) -> BatchFeature:
        seen = self.pictures(images=images, return_tensors="pt") if images is not None else {}
        counts = iter([grid.prod().item() // self.pictures.merge_size**2 for grid in seen.get("image_grid_thw", [])])
        pad = "<|image_pad|>"
        expanded = [re.sub(re.escape(pad), lambda _: pad * int(next(counts)), one) for one in text]
        return BatchFeature({**self.tokenizer(expanded, **options), **seen})


def in_float8(base: QwenImage) -> QwenImage:
    """The same model with blocks in float8; what is not, both share."""
    transformer = base.transformer
    shared = {id(tensor): tensor for tensor in (*transformer.parameters(), *transformer.buffers())}
    light = copy.deepcopy(transformer, shared)
    to_float8(light.transformer_blocks, twice=False)
    return QwenImage(QwenImagePipeline(**base.pipeline.components | {"transformer": light}), base.repo)


@contextlib.contextmanager
def computed_steps() -> Iterator[list[bool]]:
    """Inside, whether a step's remaining blocks were computed is noted, call by call."""
    seen: list[bool] = []
    own = FBCHeadBlockHook._should_compute_remaining_blocks

    def noted(self: Any, residual: Tensor) -> bool:
        seen.append(own(self, residual))
        return seen[-1]

    FBCHeadBlockHook._should_compute_remaining_blocks = noted
    try:
        yield seen
    finally:
        FBCHeadBlockHook._should_compute_remaining_blocks = own


def part(bench: Bench) -> Measured:
    """All arms in turn."""
    base = bench.base()
    pictures = Pictures(base, bench.encoder(base), [load_picture(v.image) for v in bench.states[0].views], bench.config)
    wanted, device = bench.config.generate.steps, bench.device
    arms = able(pictures.arms(), device)
    steps = {name: EDIT_STEPS if name.startswith(EDIT_ARM) else STEPS for name in arms}
    drawn = {(name, n): lambda draw=draw, n=n: draw(n) for name, draw in arms.items() for n in steps[name]}
    raw = in_turn({f"{name}: {n} steps": call for (name, n), call in drawn.items()}, bench.rounds, device)
    timings = {name: at_steps({n: raw[f"{name}: {n} steps"] for n in steps[name]}, wanted) for name in arms}
    with computed_steps() as computed:
        timings |= in_turn(able(pictures.whole_arms(), device), bench.rounds, device)
    negative = {}
    if compiles(device):
        with pictures.negative_arms() as both:
            for call in both.values():
                call()  # a second call is recorded
            negative = in_turn(both, bench.rounds, device)
    persons = [t for name, t in timings.items() if name.startswith(PERSON_ARM) and t.seconds]
    found = {
        EXACT_BAR: ratio(timings.get(STOCK), timings.get(EXACT)),
        FAST_BAR: ratio(timings.get(STOCK), timings.get(FAST)),
        EDIT: ratio(timings.get(edit_arm(3)), timings.get(person_arm(3))),
        PERSON: ratio(max(persons, key=lambda t: t.median), timings.get(EXACT)) if persons else NOTHING,
    }
    off = deviations(pictures, compiles(device))
    share = sum(computed) / len(computed) if computed else math.nan
    g = bench.config.generate
    text = "\n".join([
        f"A picture of {g.size} px in {wanted} steps with guidance, everything from the prompt on. Arms but fast and "
        f"lightning were drawn with {STEPS[0]} and {STEPS[1]} steps (the edit pipeline's with {EDIT_STEPS[0]} and "
        f"{EDIT_STEPS[1]}), and {wanted} calculated from both.",
        "", "| arm | a picture | fastest to slowest | price | peak memory |", "|---|---|---|---|---|",
        *(row(name, timing, device, 0) for name, timing in (timings | negative).items()), "",
        f"Fast computes {100 * share:.0f} % of the steps whole (threshold {g.cache_threshold:g}); with random weights "
        "that says little about the published ones. Deviation of one velocity, and of a picture: "
        + ", ".join(f"{name} {value:.4g}" for name, value in off.items()) + ".",
    ])  # fmt: skip
    return Measured(timings | negative, found, text, {"raw": raw, "computed": share, "deviation": off})


def deviations(pictures: Pictures, compiled: bool) -> dict[str, float]:
    """Of float8 against the exact way, from the same noise."""
    g, base = pictures.config.generate, pictures.base
    exact, fast = (Drawing("exact"), Drawing("fast", g.cache_threshold)) if compiled else (Drawing(), Drawing())
    with torch.no_grad():
        states = plain(base, pictures.prompt.with_word("person"))[None]
        (tokens, channels), _ = base.latent_shape(g.size)
        noise = torch.randn(1, tokens, channels, generator=torch.Generator().manual_seed(0)).to(base.device)
        t = torch.full((1,), 0.5, device=base.device)
        one, other = (m.velocity(noise, t, states, g.size).float().flatten() for m in (base, pictures.light))
    few = 8  # steps: enough for errors to add up, and for the cache
    a, b = (
        np.asarray(pictures.ours(few, way, base=model), dtype=float)
        for way, model in ((exact, base), (fast, pictures.light))
    )
    return {
        "cosine of the velocity": torch.nn.functional.cosine_similarity(one, other, 0).item(),
        "relative error of the velocity": ((one - other).norm() / one.norm()).item(),
        "grey levels of a picture of 8 steps, mean": float(abs(a - b).mean()),
        "PSNR in dB": float(10 * np.log10(255**2 / max(1e-12, ((a - b) ** 2).mean()))),
    }

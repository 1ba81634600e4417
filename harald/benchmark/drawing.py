"""A picture: ours with and without a person, the stock pipeline, and the edit pipeline with the person's pictures."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, Qwen2Tokenizer, Qwen2VLImageProcessorPil

from harald.base.float8 import to_float8
from harald.base.qwen_image import QwenImage
from harald.base.speed import Drawing
from harald.benchmark.bars import EDIT, PERSON, able, compiles, ratio, row
from harald.benchmark.bars import EXACT as EXACT_BAR
from harald.benchmark.bars import FAST as FAST_BAR
from harald.benchmark.bench import Bench, Measured
from harald.benchmark.clock import Timing, at_steps, in_turn, tried
from harald.benchmark.shapes import sharing, with_parts
from harald.benchmark.training import deterministic_algorithms
from harald.config import Config
from harald.data.images import load_picture, within_pixels
from harald.encoder.model import PersonEncoder
from harald.evaluation.bar import finite
from harald.injection.points import condition, plain
from harald.injection.prompt import ANY, parse

PROMPT = "photo of <person>, portrait, laughing, facing the camera, on a beach at dusk, warm light from the left"
STOCK, EXACT, BESIDE = "stock pipeline", "ours, nobody, compiled (exact)", "ours, nobody, compiled, beside the persons"
FLOAT8, FAST = "ours, nobody, compiled, float8", "ours, nobody, compiled, float8, block cache (fast)"
LIGHTNING = "ours, nobody, compiled, 8 steps without guidance (lightning)"
TWO, BATCHED = "velocity, two calls, compiled", "velocity, one call of two with a mask, compiled"
PERSON_ARM, EDIT_ARM = "ours, person, compiled, pictures: ", "edit pipeline, pictures: "
REFERENCES, EDITS = (1, 2, 3, 4, 8), (1, 2, 3)
STEPS, EDIT_STEPS = (2, 10), (2, 4)  # that are drawn; a picture of more is calculated from both
WARM_UP, FEW = 3, 8  # steps: recorded at the second one; of lightning and of the pictures that are compared


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
        self.computed = math.nan  # share of the steps of the last fast picture whose blocks were all computed

    def whole_arms(self) -> dict[str, Callable[[int], Any]]:
        """Name -> a picture of so many steps, to be drawn with all of them: fast takes unequal times for its steps."""
        exact = Drawing("exact")
        return {
            STOCK: self.stock,
            EXACT: lambda steps: self.ours(steps, exact),
            FAST: self.fast,
            LIGHTNING: lambda steps: self.ours(min(steps, FEW), exact, guidance=1.0),
        }

    def arms(self) -> dict[str, Callable[[int], Any]]:
        """The same for pictures of few steps, from which those of more are calculated."""
        exact = Drawing("exact")
        return {
            BESIDE: lambda steps: self.ours(steps, exact),
            **{person_arm(n): lambda steps, n=n: self.ours(steps, exact, n) for n in REFERENCES},
            **{edit_arm(n): lambda steps, n=n: self.edited(n, steps) for n in EDITS},
            FLOAT8: lambda steps: self.ours(steps, exact, base=self.light),
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
        """As one would call it: its algorithms need not be deterministic."""
        g = self.config.generate
        with deterministic_algorithms(False):
            return self.base.pipeline(
                prompt=self.prompt.with_word(self.config.injection.class_word), negative_prompt=g.negative_prompt,
                true_cfg_scale=g.guidance, height=g.size, width=g.size, num_inference_steps=steps,
                generator=torch.Generator("cpu").manual_seed(0),
            ).images  # fmt: skip

    def fast(self, steps: int) -> None:
        with computed_steps() as seen:
            self.ours(steps, Drawing("fast", self.config.generate.cache_threshold), base=self.light)
        self.computed = sum(seen) / len(seen) if seen else math.nan

    @torch.no_grad()
    def ours(
        self, steps: int, drawing: Drawing, pictures: int = 0, base: QwenImage | None = None, guidance: float = 0.0
    ) -> Image.Image:
        """pictures: of the person, 0 for nobody; guidance: 0 for that of the configuration."""
        base, g, injection = base or self.base, self.config.generate, self.config.injection
        base.texts.clear()  # the negative prompt's states would else be there already
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
        with deterministic_algorithms(False):
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
    transformer = sharing(base.transformer)
    to_float8(transformer.transformer_blocks, twice=False)
    return with_parts(base, transformer=transformer)


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


def part(bench: Bench) -> Iterator[Measured]:
    """Whole pictures of every speed and the stock pipeline's in turn; then persons and the edit pipeline."""
    base, device, wanted = bench.base(), bench.device, bench.config.generate.steps
    pictures = Pictures(base, bench.encoder(base), [load_picture(v.image) for v in bench.states[0].views], bench.config)
    whole = able(pictures.whole_arms(), device)
    timings = in_turn(at(whole, wanted), bench.rounds, device, first=at(whole, WARM_UP))
    yield tables(bench, pictures, timings)
    arms = able(pictures.arms(), device)
    steps = {name: EDIT_STEPS if name.startswith(EDIT_ARM) else STEPS for name in arms}
    drawn = {label(name, n): partial(draw, n) for name, draw in arms.items() for n in steps[name]}
    raw = in_turn(drawn, bench.rounds, device)
    timings |= {name: at_steps({n: raw[label(name, n)] for n in steps[name]}, wanted) for name in arms}
    yield tables(bench, pictures, timings, raw)
    if compiles(device):
        timings |= tried(lambda: negative(pictures, bench), lambda _: {})
    off = tried(lambda: deviations(pictures, compiles(device)), lambda _: {})
    yield tables(bench, pictures, timings, raw, off)


def at(arms: Mapping[str, Callable[[int], Any]], steps: int) -> dict[str, Callable[[], Any]]:
    return {name: partial(draw, steps) for name, draw in arms.items()}


def label(arm: str, steps: int) -> str:
    return f"{arm}: {steps} steps"


def negative(pictures: Pictures, bench: Bench) -> dict[str, Timing]:
    with pictures.negative_arms() as both:
        for call in both.values():
            call()  # a second call is recorded
        return in_turn(both, bench.rounds, bench.device)


def tables(
    bench: Bench, pictures: Pictures, timings: dict[str, Timing], raw: Mapping[str, Timing] | None = None,
    off: Mapping[str, float] | None = None,
) -> Measured:  # fmt: skip
    """What was measured so far. raw: of pictures of few steps; off: see `deviations`."""
    persons = [timing for name, timing in timings.items() if name.startswith(PERSON_ARM)]
    slowest = max(persons, key=lambda t: t.median) if persons and all(t.seconds for t in persons) else None
    found = {
        EXACT_BAR: ratio(timings.get(STOCK), timings.get(EXACT)),
        FAST_BAR: ratio(timings.get(STOCK), timings.get(FAST)),
        EDIT: ratio(timings.get(edit_arm(3)), timings.get(person_arm(3))),
        PERSON: ratio(slowest, timings.get(BESIDE)),
    }
    calculated = f"{bench.config.generate.steps} steps calculated from {STEPS[0]} and {STEPS[1]}"
    notes = {
        EXACT_BAR: "whole pictures", FAST_BAR: "whole pictures", PERSON: calculated,
        EDIT: f"{calculated}, the edit pipeline's from {EDIT_STEPS[0]} and {EDIT_STEPS[1]}",
    }  # fmt: skip
    g = bench.config.generate
    lines = [
        f"A picture of {g.size} px in {g.steps} steps with guidance, everything from the prompt on. Stock pipeline, "
        f"exact, fast and lightning drew whole pictures; others {STEPS[0]} and {STEPS[1]} steps (the edit pipeline "
        f"{EDIT_STEPS[0]} and {EDIT_STEPS[1]}), from which {g.steps} are calculated.",
        "", "| arm | a picture | fastest to slowest | price | peak memory |", "|---|---|---|---|---|",
        *(row(name, timing, bench.device, 0) for name, timing in timings.items()),
    ]  # fmt: skip
    if not math.isnan(pictures.computed):
        lines += [
            "", f"Fast computes {100 * pictures.computed:.0f} % of the steps whole (threshold {g.cache_threshold:g}); "
            "with random weights that says little about the published ones.",
        ]  # fmt: skip
    if off:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in off.items())
        lines += ["", f"Deviation of one velocity in float8, and of a fast picture: {shown}."]
    facts = {"raw": raw or {}, "computed": finite(pictures.computed), "deviation": off or {}}
    return Measured(timings, found, "\n".join(lines), facts, notes)


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
    a, b = (  # enough steps for errors to add up, and for the cache
        np.asarray(pictures.ours(FEW, way, base=model), dtype=float)
        for way, model in ((exact, base), (fast, pictures.light))
    )
    return {
        "cosine of the velocity": torch.nn.functional.cosine_similarity(one, other, 0).item(),
        "relative error of the velocity": ((one - other).norm() / one.norm()).item(),
        f"grey levels of a picture of {FEW} steps, mean": float(abs(a - b).mean()),
        "PSNR in dB": float(10 * np.log10(255**2 / max(1e-12, ((a - b) ** 2).mean()))),
    }

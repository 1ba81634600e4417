"""Pictures for all cells and arms, in batches, by the stock pipeline. A picture that two arms ask for is drawn once."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from harald.base.qwen_image import MAX_STATES, QwenImage, check_length
from harald.config import Config, Point
from harald.data.images import load_picture, png
from harald.injection.layout import Layout, lay_out
from harald.injection.points import conditioned, plain
from harald.injection.prompt import ANY, Prompt, parse
from harald.runs import write_bytes


@dataclass(frozen=True, order=True)
class Request:
    """domain: what is drawn; point: where tokens go; text: with <person> where they go, or plain; tokens: name of a row
    of the table, empty for none; seed: of the noise.
    """

    domain: str
    point: Point
    text: str
    tokens: str
    seed: int


def draw_all(
    base: QwenImage,
    requests: Iterable[Request],
    table: Mapping[str, Tensor],
    config: Config,
    told: Callable[[int], None] = lambda done: None,
    folder: Path | None = None,
) -> dict[Request, Image.Image]:
    """table: name -> tokens [K, d]. Which requests come, and in which order, changes a picture by rounding at most.

    told: hears how many of the pictures are drawn. folder: keeps them, and gives them back when the same are asked for
    again, by the same config and base model: a call that was broken off goes on, and ends with the same bytes.
    """
    wanted, pictures = sorted(set(requests)), {}
    kept = {one: folder / f"{_name(one, table)}.png" for one in wanted} if folder else {}
    for domain, point in sorted({(request.domain, request.point) for request in wanted}):
        base.use_domain(domain)
        group = [request for request in wanted if (request.domain, request.point) == (domain, point)]
        for start in range(0, len(group), config.evaluate.batch):
            part = group[start : start + config.evaluate.batch]
            if kept and all(kept[one].exists() for one in part):  # whole batches: a picture depends on its neighbours
                pictures |= {one: load_picture(kept[one]) for one in part}
            else:
                pictures |= dict(zip(part, _draw(base, part, point, table, config), strict=True))
            for one in part:
                if kept and not kept[one].exists():
                    write_bytes(kept[one], png(pictures[one]))
            told(len(pictures))
    return pictures


def _name(request: Request, table: Mapping[str, Tensor]) -> str:
    """Of all that a picture shows but the config and the base model."""
    tokens = save({"tokens": table[request.tokens].contiguous()}) if request.tokens else b""
    return hashlib.sha256(json.dumps(astuple(request)).encode() + tokens).hexdigest()[:24]


@torch.no_grad()
def _draw(
    base: QwenImage, requests: list[Request], point: Point, table: Mapping[str, Tensor], config: Config
) -> list[Image.Image]:
    layout, tokens = _laid_out(base, requests, point, table, config)
    settings, count = config.generate, len(requests)
    states = conditioned(base, layout, tokens)
    check_length(states.shape[1])
    seen = torch.ones(states.shape[:2], dtype=torch.bool) if layout.mask is None else layout.mask
    negative = {}
    if settings.guidance > 1:
        embeds = plain(base, settings.negative_prompt)[None].expand(count, -1, -1).to(base.dtype)
        whole = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        negative = {"negative_prompt_embeds": embeds, "negative_prompt_embeds_mask": whole}
    return base.pipeline(
        prompt_embeds=states.to(base.dtype),
        prompt_embeds_mask=seen.to(states.device, torch.long),
        **negative,
        true_cfg_scale=settings.guidance,
        height=settings.size,
        width=settings.size,
        num_inference_steps=settings.steps,
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        max_sequence_length=MAX_STATES,
    ).images


def _laid_out(
    base: QwenImage, requests: list[Request], point: Point, table: Mapping[str, Tensor], config: Config
) -> tuple[Layout, Tensor]:
    """The prompts, and the rows of tokens that they name, [n, d]."""
    rows, start = {}, 0
    for name in sorted({request.tokens for request in requests} - {""}):
        rows[name] = range(start, start := start + len(table[name]))
    tokens = torch.cat([table[name].to(base.device) for name in rows]) if rows else torch.empty(0, base.width)
    prompts = [
        (parse(request.text), {ANY: rows[request.tokens]} if request.tokens else {})
        if "<person" in request.text
        else (Prompt((request.text,), ()), {})
        for request in requests
    ]
    return lay_out(base.tokenize, prompts, point, config.injection.class_word), tokens

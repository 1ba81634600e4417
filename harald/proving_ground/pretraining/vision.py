"""Teaches the small Qwen3-VL to see: one picture in the encoder's own chat, and it writes the truth about it."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from harald import determinism, hub
from harald.config import ModelRef
from harald.encoder.chat import ChatBuilder
from harald.encoder.pictures import expect_equal_pictures
from harald.errors import ConfigError
from harald.evaluation.accuracy import Score, balanced_accuracy
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.judge import logged, soften
from harald.proving_ground.pretraining.pool import Pictures, Pool
from harald.proving_ground.pretraining.segment import Segment, train
from harald.proving_ground.pretraining.vae import as_pictures, autocast

PATCH, MERGE = 8, 2  # pixels of a patch; patches a side that become one token: 64 tokens at 128 px
CHUNK = 256  # pictures that are read at once where nothing is trained
IGNORED = -100  # in answers, where nothing is said
WEIGHT_DECAY = 0.05

# How a text says a class, where it is not simply by the class's name. What no text names is "none".
SAID = {
    "hair": {"bald": "bald head", "cropped": r"short \w+ hair", "long": "long straight"},
    "beard": {"full": "full beard"},
    "glasses": {"round": r"round \w+ glasses", "square": r"square \w+ glasses"},
    "earrings": {"studs": "stud earrings", "hoops": "hoop earrings", "drops": "drop earrings"},
    "necklace": {"pearls": "pearl necklace"},
    "makeup": {"made up": "lipstick"},
    "expression": {"sleeping": "closed eyes"},
    "pose": {"front": "facing", "left": "the left", "right": "the right", "up": "looking up", "down": "looking down"},
}
UNSAID = "(?!)"  # matches nothing


def run(segment: Segment) -> dict[str, float]:
    """Train the Qwen3-VL of the folder. Returns held-out loss and how often it names what is seen."""
    device, pretrain, folder = determinism.device(), segment.pretrain, segment.weights / weights.QWEN3_VL
    model, tokenizer, processor = load(folder, device)
    asked = question(tokenizer, processor, pretrain.side)
    expect_equal_pictures(model.model.visual)
    with Pool(
        segment.config.seed, segment.first_state, segment.settings.states, pretrain.held_out,
        pretrain.views, pretrain.side, pretrain.workers,
    ) as pool:  # fmt: skip
        loss = CaptionLoss(model, asked, Captions(tokenizer, pool, pretrain.prompt_tokens, device), segment, device)
        train([model.train()], loss, segment.plan(weight_decay=WEIGHT_DECAY), segment.log_row)
        weights.rounded([model.eval()])
        unseen = pool.wait_held_out()
        said = Captions(tokenizer, unseen, pretrain.prompt_tokens, device).grow(len(unseen.states))
        images, labels, identity = (
            unseen.on_device(name, len(unseen.states), device) for name in ("images", "labels", "identity")
        )
        error, table = held_out(model, tokenizer, asked, images, said, labels, identity, ATTRIBUTES)
    weights.save(model, folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)
    return {"token_loss": round(error, 4), **logged(table)}


def load(folder: Path, device: torch.device) -> tuple[Any, Qwen2Tokenizer, Qwen2VLImageProcessorPil]:
    """Model in float32, tokenizer and image processor of a folder, by way of a cache of their own."""
    with tempfile.TemporaryDirectory() as cache:
        ref = ModelRef(f"harald/{folder.name}")
        hub.install(Path(cache), ref.repo, folder)
        model = hub.load(Qwen3VLForConditionalGeneration, Path(cache), ref, dtype=torch.float32).to(device)
        others = (hub.load(kind, Path(cache), ref) for kind in (Qwen2Tokenizer, Qwen2VLImageProcessorPil))
        return model, *others


@dataclass(frozen=True)
class Question:
    """What stands before every answer, for pictures of one size. ids, kinds: [l]; grid: (t, h, w) in patches."""

    ids: Tensor
    kinds: Tensor
    grid: tuple[int, int, int]


def question(tokenizer: Qwen2Tokenizer, processor: Qwen2VLImageProcessorPil, side: int) -> Question:
    """The encoder's own chat of one picture, up to where the answer (or the queries) begin."""
    builder = ChatBuilder(tokenizer, processor, [], side * side)
    ((_, chat),) = builder.build([[Image.new("RGB", (side, side))]])
    return Question(chat.ids, chat.kinds, chat.grids[0])


def answers(tokenizer: Qwen2Tokenizer, texts: Sequence[str]) -> Tensor:
    """[n, longest], int64: the tokens of each text and its end, then IGNORED."""
    rows = [torch.tensor(ids) for ids in tokenizer([f"{text}<|im_end|>" for text in texts]).input_ids]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)


def patches(pictures: Tensor) -> Tensor:
    """[B, 3, S, S] in [-1, 1] -> [B * S * S / 64, 3 * 2 * 8 * 8]: what the image processor makes, on any device.

    Patches that become one token follow each other; a still picture is shown twice, as two frames.
    """
    count, _, side, _ = pictures.shape
    cells = side // (PATCH * MERGE)
    parts = pictures.reshape(count, 3, cells, MERGE, PATCH, cells, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    twice = parts[..., None, :, :].expand(*parts.shape[:-2], 2, PATCH, PATCH)
    return twice.reshape(count * cells * cells * MERGE * MERGE, -1)


def answer_logits(model: Any, asked: Question, pictures: Tensor, said: Tensor) -> Tensor:
    """Scores of every answer token given the picture and the tokens before it: [B, L, vocabulary].

    pictures: [B, 3, S, S]; said: [B, L] token ids, anything where IGNORED: what comes later cannot be seen.
    """
    count, length, device = len(said), len(asked.ids), said.device
    ids = torch.cat([asked.ids.to(device).expand(count, -1), said.clamp(min=0)], 1)
    kinds = F.pad(asked.kinds, (0, said.shape[1])).to(device)
    places, _ = model.model.get_rope_index(
        ids[:1], mm_token_type_ids=kinds[None], image_grid_thw=torch.tensor([asked.grid], device=device)
    )
    frames = torch.tensor([[count, *asked.grid[1:]]], device=device)  # one entry for all: they are read alike
    states = model.model(
        input_ids=ids,
        position_ids=places.expand(-1, count, -1),
        pixel_values=patches(pictures),
        image_grid_thw=frames,
        use_cache=False,
    ).last_hidden_state
    return model.lm_head(states[:, length - 1 : -1])


class Captions:
    """The full texts of the pool's pictures as answers, made as the pool grows."""

    def __init__(self, tokenizer: Qwen2Tokenizer, pictures: Pictures, limit: int, device: torch.device):
        self.tokenizer, self.pictures, self.limit = tokenizer, pictures, limit
        shape = (len(pictures.states), pictures.views, limit)
        self.said = torch.full(shape, IGNORED, device=device)
        self.states = self.longest = 0

    def grow(self, states: int) -> Tensor:
        """Answers of the first states, [states, V, longest of them]. Raises ConfigError for one that is too long."""
        self.pictures.wait(states)
        if states > self.states:
            texts = [full for state in self.pictures.prompts[self.states : states] for full, _ in state]
            rows = answers(self.tokenizer, texts)
            if rows.shape[1] > self.limit:
                raise ConfigError(
                    f"a text has {rows.shape[1]} tokens: {max(texts, key=len)!r}",
                    f"raise pretrain.prompt_tokens above {self.limit}, or teach the tokenizer its words",
                )
            fresh = rows.reshape(states - self.states, self.pictures.views, -1)
            self.said[self.states : states, :, : rows.shape[1]] = fresh.to(self.said.device)
            self.states, self.longest = states, max(self.longest, rows.shape[1])
        return self.said[:states, :, : self.longest]


class CaptionLoss:
    """Loss of a step over pictures that are drawn on the device."""

    def __init__(self, model: Any, asked: Question, captions: Captions, segment: Segment, device: torch.device):
        self.model, self.asked, self.captions, self.segment, self.device = model, asked, captions, segment, device

    def __call__(self, step: int) -> dict[str, Tensor]:
        states = self.segment.visible(step)
        images = self.captions.pictures.on_device("images", states, self.device)
        draw = self.segment.generator(self.device, step)
        return loss(self.model, self.asked, images, self.captions.grow(states), self.segment.settings.batch, draw)


def loss(
    model: Any, asked: Question, images: Tensor, said: Tensor, batch: int, draw: torch.Generator
) -> dict[str, Tensor]:
    """Mean cross-entropy of the answer's tokens, all weighing alike. images: uint8 [N, V, S, S, 3]; said: [N, V, L]."""
    flat, texts = images.flatten(0, 1), said.flatten(0, 1)
    rows = torch.randint(len(flat), (batch,), generator=draw, device=images.device)
    pictures = soften(as_pictures(flat[rows]), draw)
    with autocast(images.device):
        scores = answer_logits(model, asked, pictures, texts[rows])
    return {"loss": F.cross_entropy(scores.flatten(0, 1).float(), texts[rows].flatten(), ignore_index=IGNORED)}


def named(text: str, attribute: str, classes: Sequence[str]) -> int:
    """Number of the class that a text says, -2 where it says none (never the truth, and not "cannot be seen").

    >>> named("photo of a woman with long wavy red hair", "hair", ("bald", "long", "wavy"))
    2
    """
    special = SAID.get(attribute, {})
    for place, name in enumerate(classes):
        pattern = special.get(name, UNSAID if name == "none" else re.escape(name))
        if attribute == "hair_colour":
            pattern = rf"{pattern} (hair|afro|mohawk|bob)"
        if re.search(rf"\b{pattern}\b", text):
            return place
    return classes.index("none") if "none" in classes else -2


@torch.no_grad()
def held_out(
    model: Any, tokenizer: Qwen2Tokenizer, asked: Question, images: Tensor, said: Tensor, labels: Tensor,
    identity: Tensor, attributes: Mapping[str, Sequence[str]], seed: int = 0,
) -> tuple[float, dict[str, Score]]:  # fmt: skip
    """Mean loss of an answer token, and how often the greedy answer names what is seen, on pictures never shown.

    images: uint8 [N, V, S, S, 3]; said: [N, V, L]; labels: [N, V, A]; identity: [N].
    """
    pictures, texts, total, written = as_pictures(images.flatten(0, 1)), said.flatten(0, 1), 0.0, []
    for part, text in zip(pictures.split(CHUNK), texts.split(CHUNK), strict=True):
        scores = answer_logits(model, asked, part, text).float()
        total += F.cross_entropy(scores.flatten(0, 1), text.flatten(), ignore_index=IGNORED, reduction="sum").item()
        written += tokenizer.batch_decode(greedy(model, asked, part, said.shape[-1]), skip_special_tokens=True)
    people = identity.cpu().repeat_interleave(images.shape[1])
    truth = labels.flatten(0, 1).cpu()
    table = {}
    for place, (name, classes) in enumerate(attributes.items()):
        guess = torch.tensor([named(text, name, classes) for text in written])
        table[name] = balanced_accuracy(guess, truth[:, place], people, seed)
    return total / (texts != IGNORED).sum().item(), table


def greedy(model: Any, asked: Question, pictures: Tensor, longest: int) -> Tensor:
    """The likeliest words about each picture: [B, up to longest] token ids, padded after the end."""
    count, device = len(pictures), pictures.device
    return model.generate(
        input_ids=asked.ids.to(device).expand(count, -1),
        attention_mask=torch.ones(count, len(asked.ids), dtype=torch.long, device=device),
        mm_token_type_ids=asked.kinds.to(device).expand(count, -1),
        pixel_values=patches(pictures),
        image_grid_thw=torch.tensor([asked.grid] * count, device=device),
        max_new_tokens=longest,
        do_sample=False,
    )[:, len(asked.ids) :]

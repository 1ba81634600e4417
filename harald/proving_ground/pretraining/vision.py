"""Teaches the small Qwen3-VL to see: one picture in the encoder's own chat, and it answers what is asked about it."""

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
from harald.encoder.pictures import expect_equal_pictures, read
from harald.evaluation.accuracy import Score, balanced_accuracy
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.facts import IGNORED, NONE, WIDTHS, Sheet, facts
from harald.proving_ground.pretraining.judge import logged, soften
from harald.proving_ground.pretraining.pool import Pictures
from harald.proving_ground.pretraining.segment import Segment, train
from harald.proving_ground.pretraining.vae import as_pictures, autocast

PATCH, MERGE = 8, 2  # pixels of a patch; patches a side that become one token: 64 tokens at 128 px
CHUNK = 256  # pictures that are read at once where nothing is trained
WEIGHT_DECAY = 0.05

# How an answer says a class, where it is not simply by the class's name.
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


def run(segment: Segment) -> dict[str, float]:
    """Train the Qwen3-VL of the folder. Returns held-out loss and how often it names what is seen."""
    device, pretrain, folder = determinism.device(), segment.pretrain, segment.weights / weights.QWEN3_VL
    model, tokenizer, processor = load(folder, device)
    asked = question(model, tokenizer, processor, pretrain.side, device)
    expect_equal_pictures(model.model)
    with segment.pool() as pool:
        loss = AnswerLoss(model, asked, Answers(tokenizer, asked, pool, device), segment, device)
        train([model.train()], loss, segment.plan(weight_decay=WEIGHT_DECAY), segment.log_row)
        weights.rounded([model.eval()])
        unseen = pool.wait_held_out()
        said = Answers(tokenizer, asked, unseen, device).grow(len(unseen.states))
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
    """What stands before every answer, for pictures of one size, and what is asked.

    ids: [l] of the chat; kinds: [l + L] on the host, 1 where a picture's token stands; grid: (t, h, w) in patches;
    places: [3, l + L] for the rotary embedding, every question beginning at the same one; visible: [l + L, l + L].
    """

    ids: Tensor
    kinds: Tensor
    grid: tuple[int, int, int]
    sheet: Sheet
    places: Tensor
    visible: Tensor


def question(
    model: Any, tokenizer: Qwen2Tokenizer, processor: Qwen2VLImageProcessorPil, side: int, device: torch.device
) -> Question:
    """The encoder's own chat of one picture, up to where the queries would begin, and what is asked there."""
    builder = ChatBuilder(tokenizer, processor, [], side * side)
    ((_, chat),) = builder.build([[Image.new("RGB", (side, side))]])
    before, _ = model.model.get_rope_index(
        chat.ids[None], mm_token_type_ids=chat.kinds[None], image_grid_thw=torch.tensor(chat.grids)
    )
    sheet = Sheet.of(tokenizer)
    after = before.max() + 1 + sheet.offset
    return Question(
        ids=chat.ids.to(device),
        kinds=F.pad(chat.kinds, (0, len(sheet.ids))),
        grid=chat.grids[0],
        sheet=sheet,
        places=torch.cat([before[:, 0], after.expand(3, -1)], 1).to(device),
        visible=sheet.visible(len(chat.ids)).to(device),
    )


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
    count, length = len(said), len(asked.ids)
    sheet = torch.where(said == IGNORED, asked.sheet.ids.to(said.device), said).clamp(min=0)
    frames = torch.tensor([[count, *asked.grid[1:]]], device=said.device)  # one entry for all: they are read alike
    seen = model.model.visual(patches(pictures), grid_thw=frames, return_dict=True)
    states = read(
        model.model,
        model.model.get_input_embeddings()(torch.cat([asked.ids.expand(count, -1), sheet], 1)),
        asked.kinds,
        [level.unflatten(0, (count, -1)) for level in (seen.pooler_output, *seen.deepstack_features)],
        asked.places[:, None].expand(-1, count, -1),
        attention_mask=asked.visible.expand(count, 1, -1, -1),
    ).last_hidden_state
    return model.lm_head(states[:, length - 1 : -1])


class Answers:
    """The truth about the pool's pictures, made as the pool grows. said: [N, V, L]."""

    def __init__(self, tokenizer: Qwen2Tokenizer, asked: Question, pictures: Pictures, device: torch.device):
        self.tokenizer, self.sheet, self.pictures = tokenizer, asked.sheet, pictures
        shape = (len(pictures.states), pictures.views, len(asked.sheet.ids))
        self.said = torch.full(shape, IGNORED, dtype=torch.int16, device=device)
        self.states = 0

    def grow(self, states: int) -> Tensor:
        """Answers of the first states, int16 [states, V, L]. Raises ConfigError for one that is too long."""
        self.pictures.wait(states)
        if states > self.states:
            views = [
                facts(*texts, labels.tolist())
                for place in range(self.states, states)
                for texts, labels in zip(self.pictures.prompts[place], self.pictures.labels[place], strict=True)
            ]
            fresh = self.sheet.answers(self.tokenizer, views).unflatten(0, (states - self.states, -1))
            self.said[self.states : states] = fresh.to(self.said)
        self.states = max(self.states, states)
        return self.said[:states]


class AnswerLoss:
    """Loss of a step over pictures that are drawn on the device."""

    def __init__(self, model: Any, asked: Question, answers: Answers, segment: Segment, device: torch.device):
        self.model, self.asked, self.answers, self.segment, self.device = model, asked, answers, segment, device

    def __call__(self, step: int) -> dict[str, Tensor]:
        states = self.segment.visible(step)
        images = self.answers.pictures.on_device("images", states, self.device)
        draw = self.segment.generator(self.device, step)
        return loss(self.model, self.asked, images, self.answers.grow(states), self.segment.settings.batch, draw)


def loss(
    model: Any, asked: Question, images: Tensor, said: Tensor, batch: int, draw: torch.Generator
) -> dict[str, Tensor]:
    """Mean cross-entropy of the answers' tokens, all weighing alike. images: uint8 [N, V, S, S, 3]; said: [N, V, L]."""
    flat, texts = images.flatten(0, 1), said.flatten(0, 1)
    rows = torch.randint(len(flat), (batch,), generator=draw, device=images.device)
    pictures = soften(as_pictures(flat[rows]), draw)
    with autocast(images.device):
        chosen = texts[rows].long()
        scores = answer_logits(model, asked, pictures, chosen)
    return {"loss": F.cross_entropy(scores.flatten(0, 1).float(), chosen.flatten(), ignore_index=IGNORED)}


def named(answer: str, attribute: str, classes: Sequence[str]) -> int:
    """Number of the class that an answer says, -2 where it says none (never the truth, and not "cannot be seen").

    >>> named("long wavy red hair", "hair", ("bald", "long", "wavy"))
    2
    """
    special = {"none": NONE, **SAID.get(attribute, {})}
    patterns = [special.get(name, re.escape(name)) for name in classes]
    return next((n for n, pattern in enumerate(patterns) if re.search(rf"\b{pattern}\b", answer)), -2)


@torch.no_grad()
def held_out(
    model: Any, tokenizer: Qwen2Tokenizer, asked: Question, images: Tensor, said: Tensor, labels: Tensor,
    identity: Tensor, attributes: Mapping[str, Sequence[str]], seed: int = 0,
) -> tuple[float, dict[str, Score]]:  # fmt: skip
    """Mean loss of an answer token, and how often the likeliest answer names what is seen, on pictures never shown.

    images: uint8 [N, V, S, S, 3]; said: [N, V, L]; labels: [N, V, A]; identity: [N].
    """
    pictures, texts, total, written = as_pictures(images.flatten(0, 1)), said.flatten(0, 1).long(), 0.0, []
    for part, text in zip(pictures.split(CHUNK), texts.split(CHUNK), strict=True):
        scores = answer_logits(model, asked, part, text).float()
        total += F.cross_entropy(scores.flatten(0, 1), text.flatten(), ignore_index=IGNORED, reduction="sum").item()
        written += asked.sheet.read(tokenizer, greedy(model, asked, part))
    people = identity.cpu().repeat_interleave(images.shape[1])
    truth = labels.flatten(0, 1).cpu()
    table = {}
    for place, (name, classes) in enumerate(attributes.items()):
        guess = torch.tensor([named(answers[list(WIDTHS).index(name)], name, classes) for answers in written])
        table[name] = balanced_accuracy(guess, truth[:, place], people, seed)
    return total / (texts != IGNORED).sum().item(), table


def greedy(model: Any, asked: Question, pictures: Tensor) -> Tensor:
    """The likeliest answer to every question about each picture, token by token: [B, L] ids."""
    said = torch.full((len(pictures), len(asked.sheet.ids)), IGNORED, device=pictures.device)
    for step in range(max(map(len, asked.sheet.rooms))):
        places = [room[step] for room in asked.sheet.rooms if step < len(room)]
        said[:, places] = answer_logits(model, asked, pictures, said)[:, places].argmax(-1)
    return said

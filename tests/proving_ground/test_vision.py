import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from harald.encoder.chat import ChatBuilder
from harald.encoder.pictures import EqualPictures, expect_equal_pictures
from harald.proving_ground import mini_models, persons
from harald.proving_ground.mini_tokenizer import build
from harald.proving_ground.pretraining import vision
from harald.proving_ground.pretraining.facts import IGNORED, NONE, WIDTHS
from harald.proving_ground.pretraining.segment import Plan, generator, train
from harald.proving_ground.pretraining.vae import as_pictures

TOKENIZER, SIDE, CPU = build(), 32, torch.device("cpu")
PROCESSOR = Qwen2VLImageProcessorPil(
    patch_size=8,
    merge_size=2,
    size={"shortest_edge": 256, "longest_edge": 65536},
    image_mean=[0.5] * 3,
    image_std=[0.5] * 3,
)
ATTRIBUTES = {"scene": ("park", "beach", "forest")}


@functools.cache
def folder() -> Path:
    """The TINY Qwen3-VL with random weights."""
    path = Path(tempfile.mkdtemp(prefix="harald-test-vision-")) / "mini-qwen3-vl"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mini_models.qwen3_vl(path, mini_models.TINY)
    return path


def tiny() -> Any:
    return vision.load(folder(), CPU)[0]


def noise(count: int, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("side", [32, 128])
def test_patches_and_question_equal_the_encoders_own_chat(side):
    images = noise(2, side)
    builder = ChatBuilder(TOKENIZER, PROCESSOR, [5, 6], side * side)
    ((_, chat),) = builder.build([[Image.fromarray(image)] for image in images])
    theirs = builder.normalized(chat.patches[0]).flatten(0, 1)
    torch.testing.assert_close(vision.patches(as_pictures(torch.from_numpy(images))), theirs, rtol=0, atol=1e-6)
    asked = vision.question(tiny(), TOKENIZER, PROCESSOR, side, CPU)
    assert torch.equal(asked.ids, chat.ids[:-2]) and torch.equal(asked.kinds[: len(asked.ids)], chat.kinds[:-2])
    assert asked.grid == chat.grids[0]


def asking(model: Any) -> vision.Question:
    return vision.question(model, TOKENIZER, PROCESSOR, SIDE, CPU)


def answers(asked: vision.Question, *told: dict[str, str]) -> torch.Tensor:
    """[n, L]: what is told of each picture, "no" to everything else."""
    return asked.sheet.answers(TOKENIZER, [[facts.get(name, NONE) for name in WIDTHS] for facts in told])


def test_every_answer_equals_the_librarys_own_for_that_question_alone():
    model, pictures = tiny().eval(), as_pictures(torch.from_numpy(noise(2)))
    asked = asking(model)
    said = answers(asked, {"hair": "long red hair", "scene": "in a park"}, {"glasses": "round red glasses"})
    sheet = torch.where(said == IGNORED, asked.sheet.ids, said)
    alone = {}
    with torch.no_grad():
        for number, name in enumerate(WIDTHS):
            own = sheet[:, asked.sheet.block == number].clamp(min=0)
            alone[name] = model(
                input_ids=torch.cat([asked.ids.expand(2, -1), own], 1),
                mm_token_type_ids=asked.kinds[: len(asked.ids) + own.shape[1]].expand(2, -1),
                pixel_values=vision.patches(pictures),
                image_grid_thw=torch.tensor([asked.grid] * 2),
            ).logits[:, len(asked.ids) : -1]
        expect_equal_pictures(model.model)
        together = vision.answer_logits(model, asked, pictures, said)
    for number, name in enumerate(WIDTHS):
        first, last = (torch.nonzero(asked.sheet.block == number).flatten()[place] for place in (0, -1))
        torch.testing.assert_close(together[:, first + 1 : last + 1], alone[name], rtol=0, atol=1e-5)
    assert {type(block.attn) for block in model.model.visual.blocks} == {EqualPictures}


def scenes(asked: vision.Question, states: int, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures of one colour for each scene. images [N, 2, S, S, 3], answers [N, 2, L], labels [N, 2, 1]."""
    labels = torch.randint(3, (states, 2), generator=torch.Generator().manual_seed(first))
    colours = torch.tensor([[20, 200, 40], [240, 220, 90], [60, 40, 160]], dtype=torch.uint8)
    images = colours[labels][:, :, None, None].expand(-1, -1, SIDE, SIDE, -1).contiguous()
    told = [{"scene": f"in a {ATTRIBUTES['scene'][label]}"} for label in labels.flatten()]
    return images, answers(asked, *told).unflatten(0, (states, 2)), labels[..., None]


def test_questions_teach_the_model_to_name_what_it_sees():
    model = tiny()
    asked, rows = asking(model), []
    images, said, _ = scenes(asked, 32, 0)
    plan = Plan(steps=120, learning_rate=4e-3, warmup_steps=5, decay_share=0.4, ema=0.9)
    unseen, texts, labels = scenes(asked, 16, 1)
    expect_equal_pictures(model.model)
    train([model], lambda step: vision.loss(model, asked, images, said, 16, generator(CPU, 0, step)), plan, rows.append)
    error, table = vision.held_out(
        model.eval(), TOKENIZER, asked, unseen, texts, labels, torch.arange(16) // 2, ATTRIBUTES
    )
    assert table["scene"].value > 0.95 and error < 0.1, (error, table, rows)


@dataclass
class Told:
    """A pool of which only texts and labels are asked."""

    prompts: list
    views: int = 1

    @property
    def states(self) -> range:
        return range(len(self.prompts))

    @property
    def labels(self) -> np.ndarray:
        return np.ones((len(self.prompts), self.views, len(persons.ATTRIBUTES)), np.int8)

    def wait(self, n: int) -> None:
        assert n <= len(self.prompts)


def test_answers_grow_with_the_pool():
    said = "photo of a {} with black hair, wearing a red coat, portrait, smiling, facing the camera, in a park"
    free = "photo of person, portrait, smiling, facing the camera, in a park"
    pool: Any = Told([((said.format(who), free),) for who in ("man", "woman")])
    asked = asking(tiny())
    kept = vision.Answers(TOKENIZER, asked, pool, CPU)
    assert kept.grow(1).shape == (1, 1, len(asked.sheet.ids))
    read = asked.sheet.read(TOKENIZER, kept.grow(2).flatten(0, 1).long())
    person, hair, outfit = (list(WIDTHS).index(name) for name in ("person", "hair", "outfit"))
    assert [row[person] for row in read] == ["a man", "a woman"]
    assert {(row[hair], row[outfit]) for row in read} == {("black hair", "a red coat")}


def test_trained_size_stays_small(tmp_path):
    mini_models.qwen3_vl(tmp_path, mini_models.TRAINED)
    model, _, processor = vision.load(tmp_path, CPU)
    assert sum(p.numel() for p in model.parameters()) <= 5_800_000
    assert (processor.patch_size, processor.merge_size) == (vision.PATCH, vision.MERGE)

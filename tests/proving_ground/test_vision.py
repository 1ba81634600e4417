import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import Qwen2VLImageProcessorPil

from harald.encoder.chat import ChatBuilder
from harald.encoder.pictures import EqualPictures, expect_equal_pictures
from harald.errors import ConfigError
from harald.proving_ground import mini_models
from harald.proving_ground.mini_tokenizer import build
from harald.proving_ground.pretraining import vision
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
    asked = vision.question(TOKENIZER, PROCESSOR, side)
    assert torch.equal(asked.ids, chat.ids[:-2]) and torch.equal(asked.kinds, chat.kinds[:-2])
    assert asked.grid == chat.grids[0]


def test_fast_reading_of_a_batch_equals_the_librarys_own():
    model, pictures = tiny().eval(), as_pictures(torch.from_numpy(noise(3)))
    asked = vision.question(TOKENIZER, PROCESSOR, SIDE)
    said = vision.answers(TOKENIZER, ["photo of a woman", "comic of a man with a hat", "photo"])
    with torch.no_grad():
        plain = model(
            input_ids=torch.cat([asked.ids.expand(3, -1), said.clamp(min=0)], 1),
            mm_token_type_ids=F.pad(asked.kinds, (0, said.shape[1])).expand(3, -1),
            pixel_values=vision.patches(pictures),
            image_grid_thw=torch.tensor([asked.grid] * 3),
        ).logits[:, len(asked.ids) - 1 : -1]
        expect_equal_pictures(model.model.visual)
        fast = vision.answer_logits(model, asked, pictures, said)
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5)
    assert {type(block.attn) for block in model.model.visual.blocks} == {EqualPictures}


def test_answers_end_and_what_pads_them_is_ignored():
    said = vision.answers(TOKENIZER, ["photo of a woman", "photo"])
    end = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
    assert said[0, -1] == end and said[1, 1] == end and (said[1, 2:] == vision.IGNORED).all()
    assert TOKENIZER.decode(said[0, :-1]) == "photo of a woman"


def scenes(states: int, first: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures of one colour for each scene. images [N, 2, S, S, 3], answers [N, 2, L], labels [N, 2, 1]."""
    labels = torch.randint(3, (states, 2), generator=torch.Generator().manual_seed(first))
    colours = torch.tensor([[20, 200, 40], [240, 220, 90], [60, 40, 160]], dtype=torch.uint8)
    images = colours[labels][:, :, None, None].expand(-1, -1, SIDE, SIDE, -1).contiguous()
    texts = [f"photo in the {ATTRIBUTES['scene'][label]}" for label in labels.flatten()]
    return images, vision.answers(TOKENIZER, texts).reshape(states, 2, -1), labels[..., None]


def test_captioning_teaches_the_model_to_name_what_it_sees():
    asked, model = vision.question(TOKENIZER, PROCESSOR, SIDE), tiny()
    images, said, _ = scenes(32, 0)
    plan, rows = Plan(steps=50, learning_rate=4e-3, warmup_steps=5, decay_share=0.4, ema=0.9), []
    unseen, texts, labels = scenes(16, 1)
    expect_equal_pictures(model.model.visual)
    train([model], lambda step: vision.loss(model, asked, images, said, 16, generator(CPU, 0, step)), plan, rows.append)
    error, table = vision.held_out(
        model.eval(), TOKENIZER, asked, unseen, texts, labels, torch.arange(16) // 2, ATTRIBUTES
    )
    assert table["scene"].value > 0.95 and error < 0.1, (error, table, rows)


@dataclass
class Told:
    """A pool of which only the prompts are asked."""

    prompts: list
    views: int = 1

    @property
    def states(self) -> range:
        return range(len(self.prompts))

    def wait(self, n: int) -> None:
        assert n <= len(self.prompts)


def test_captions_grow_with_the_pool_and_refuse_what_is_too_long():
    pool: Any = Told([(("photo of a man", "photo"),), (("photo of a woman with red hair", "photo"),)])
    captions = vision.Captions(TOKENIZER, pool, 10, CPU)
    assert captions.grow(1).shape == (1, 1, 5) and captions.grow(2).shape == (2, 1, 8)
    assert TOKENIZER.decode(captions.grow(2)[0, 0, :4]) == "photo of a man"
    assert (captions.grow(2)[0, 0, 5:] == vision.IGNORED).all()
    with pytest.raises(ConfigError, match="a text has 8 tokens: 'photo of a woman with red hair'"):
        vision.Captions(TOKENIZER, pool, 7, CPU).grow(2)


def test_trained_size_stays_small(tmp_path):
    mini_models.qwen3_vl(tmp_path, mini_models.TRAINED)
    model, _, processor = vision.load(tmp_path, CPU)
    assert sum(p.numel() for p in model.parameters()) <= 5_800_000
    assert (processor.patch_size, processor.merge_size) == (vision.PATCH, vision.MERGE)


@pytest.mark.parametrize(
    ("text", "attribute", "classes", "expected"),
    [
        ("a woman with long wavy red hair, round red glasses, close-up", "hair", ("bald", "long", "wavy"), "wavy"),
        ("a man with short grey hair, a long full beard", "hair", ("cropped", "long"), "cropped"),
        (
            "a man with a grey afro, wearing a red hoodie and a black hat",
            "hair_colour",
            ("black", "red", "grey"),
            "grey",
        ),
        ("a man with a round face", "glasses", ("none", "round"), "none"),
        ("a man with red sunglasses", "glasses", ("none", "round", "square", "sunglasses"), "sunglasses"),
        ("close-up, smiling, turned to the left", "pose", ("front", "up", "left"), "left"),
        ("portrait, with closed eyes", "expression", ("neutral", "sleeping"), "sleeping"),
    ],
)
def test_classes_are_found_in_the_text(text, attribute, classes, expected):
    assert classes[vision.named(text, attribute, classes)] == expected


def test_text_that_names_no_class_is_never_right():
    assert vision.named("photo of a man", "scene", ("park", "beach")) == -2

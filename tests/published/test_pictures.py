"""References at the full preset's budget: sizes, patches, tokens and length, by the class's own numbers."""

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from harald import hub
from harald.config import full
from harald.encoder.chat import ChatBuilder
from harald.errors import DatasetError
from harald.published.facts import PUBLISHED
from tests.published.checkpoints import ENCODER, TOKENIZER, published, write

K = full().encoder.tokens


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> ChatBuilder:
    """With the published preprocessor_config.json, loaded as PersonEncoder loads it; the tokenizer is a small one."""
    folder = tmp_path_factory.mktemp("encoder")
    hub.install(folder / "cache", ENCODER.repo, write(published(ENCODER), folder / "source"))
    processor = hub.load(Qwen2VLImageProcessorPil, folder / "cache", ENCODER)
    return ChatBuilder(TOKENIZER, processor, list(range(K)), full().encoder.max_pixels)


def test_processor_has_the_published_sizes(chats):
    (model,) = (part for part in PUBLISHED[ENCODER.repo].parts if part.parameters)
    vision = PUBLISHED[ENCODER.repo].config(model)["vision_config"]
    assert (chats.processor.patch_size, chats.processor.merge_size) == (16, 2)
    assert (vision["patch_size"], vision["spatial_merge_size"]) == (16, 2)
    assert chats.processor.temporal_patch_size == vision["temporal_patch_size"] == 2
    assert list(chats.processor.image_mean) == list(chats.processor.image_std) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("size", "resized", "tokens"),  # width, height
    [
        ((512, 512), (512, 512), 256),
        ((1024, 1024), (512, 512), 256),
        ((2048, 2048), (512, 512), 256),
        ((1024, 1536), (416, 608), 247),
        ((1920, 1080), (672, 384), 252),
        ((1000, 250), (992, 256), 248),
        ((3000, 100), (2784, 64), 174),
        ((300, 200), (288, 192), 54),
        ((64, 64), (64, 64), 4),
        ((10, 10), (32, 32), 1),
        ((7, 1001), (32, 384), 12),
    ],
)
def test_picture_becomes_so_many_tokens(chats, size, resized, tokens):
    ((_, chat),) = chats.build([[Image.new("RGB", size)]])
    ((frames, height, width),) = chat.grids
    assert (frames, width * 16, height * 16) == (1, *resized)
    assert int(chat.kinds.sum()) == tokens == height * width // 4
    assert chat.patches[0].shape == (1, height * width, 3 * 2 * 16 * 16)
    assert width * height * 256 <= max(full().encoder.max_pixels, 32 * 32)
    budget = {"min_pixels": chats.size["shortest_edge"], "max_pixels": chats.size["longest_edge"]}
    own = chats.processor.get_number_of_image_patches(size[1], size[0], budget)
    assert own == height * width


def test_picture_that_the_processor_refuses_is_named(chats):
    with pytest.raises(DatasetError, match=r"(?s)a reference is 3 x 640 pixels.*200 times.*crop it"):
        chats.build([[Image.new("RGB", (3, 640))]])
    chats.build([[Image.new("RGB", (3, 600))]])


@pytest.mark.parametrize("references", [1, 2, 4, 16])
def test_length_of_the_sequence_grows_by_258_for_a_square_reference(chats, references):
    ((_, chat),) = chats.build([[Image.new("RGB", (700, 700))] * references])
    ((_, none),) = chats.build([[Image.new("RGB", (10, 10))]])
    text = len(none.ids) - K - 3  # without the one picture: two markers and one token
    assert len(chat.ids) == references * (256 + 2) + text + K
    (model,) = (part for part in PUBLISHED[ENCODER.repo].parts if part.parameters)
    assert len(chat.ids) < PUBLISHED[ENCODER.repo].config(model)["text_config"]["max_position_embeddings"]


def test_pixels_reach_the_tower_as_the_processor_itself_prepares_them(chats):
    picture = Image.effect_noise((160, 96), 80).convert("RGB")
    ((_, chat),) = chats.build([[picture]])
    own = chats.processor(images=[picture], size=chats.size, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(chats.normalized(chat.patches[0][0]), own, rtol=0, atol=1e-6)

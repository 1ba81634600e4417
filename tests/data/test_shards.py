"""A shard that was cut, swapped, flipped or made for something else is noticed; none is ever served."""

import random
import re

import pytest
import torch

from harald.data.shards import Shard, shard_name, verified, write_shard
from harald.errors import DatasetError

KEY = {"base": "some/model", "size": 64}
NAMES = ["a" * 64, "b" * 64, "c" * 64]


def latents(seed: int, names: list[str] = NAMES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 8, generator=generator) for name in names}


@pytest.fixture
def shard(tmp_path):
    return write_shard(tmp_path, KEY, latents(0))


def test_latents_come_back_bit_for_bit(shard):
    opened, written = Shard(shard, KEY), latents(0)
    assert opened.pictures == NAMES
    assert all(torch.equal(opened.get(name), written[name]) for name in NAMES)


def test_latents_keep_their_number_type(tmp_path):
    half = {name: tensor.bfloat16() for name, tensor in latents(0).items()}
    opened = Shard(write_shard(tmp_path, KEY, half), KEY)
    assert opened.get(NAMES[0]).dtype == torch.bfloat16 and torch.equal(opened.get(NAMES[0]), half[NAMES[0]])


def test_same_latents_in_any_order_give_the_same_file(tmp_path):
    one, other = latents(0), dict(reversed(latents(0).items()))
    paths = [write_shard(tmp_path / name, KEY, part) for name, part in (("one", one), ("other", other))]
    assert paths[0].name == paths[1].name and paths[0].read_bytes() == paths[1].read_bytes()


def test_any_flipped_bit_is_noticed(shard):
    """In the length of the header, in the header, and in the latents."""
    whole, draw = shard.read_bytes(), random.Random(0)
    for place in (*range(8), *range(8, len(whole), 5)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        shard.write_bytes(flipped)
        with pytest.raises(DatasetError, match="cannot be used"):
            verified(shard, KEY)
    shard.write_bytes(whole)
    assert verified(shard, KEY) == NAMES


def test_cut_shard_is_noticed_when_it_is_opened(shard):
    whole = shard.read_bytes()
    for length in range(0, len(whole), 37):
        shard.write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=f"{shard.name} cannot be used") as caught:
            Shard(shard, KEY)
        assert "run prepare again" in str(caught.value)


def test_swapped_shards_are_noticed_when_they_are_opened(tmp_path, shard):
    other = write_shard(tmp_path, KEY, latents(0, ["d" * 64]))
    one, two = shard.read_bytes(), other.read_bytes()
    shard.write_bytes(two)
    other.write_bytes(one)
    for path in (shard, other):
        with pytest.raises(DatasetError, match="belongs under another name"):
            Shard(path, KEY)


def test_shard_of_another_key_is_refused(shard):
    with pytest.raises(DatasetError, match=re.escape("'size': 64}), not for")):
        Shard(shard, {**KEY, "size": 128})


def test_missing_shard_is_named(tmp_path):
    with pytest.raises(DatasetError, match=shard_name(NAMES)):
        Shard(tmp_path / shard_name(NAMES), KEY)

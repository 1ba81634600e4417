import importlib.util
import json

import pytest
import torch

from harald import hub
from harald.config import ModelRef
from harald.errors import ModelError
from harald.evaluation.face_model import FaceModel
from harald.evaluation.judge import Judge
from harald.proving_ground.pretraining.judge import new

ATTRIBUTES = {"hat": ("none", "cap", "beanie"), "beard": ("none", "full")}  # not in alphabetical order


def judge() -> Judge:
    return new(ATTRIBUTES, side=32, seed=0, width=4).eval()


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_reading_has_probabilities_and_a_unit_embedding():
    reading = judge().read(pictures(5))
    assert list(reading.log_probability) == ["hat", "beard"]
    assert reading.log_probability["hat"].exp().sum(1).tolist() == pytest.approx([1.0] * 5)
    assert reading.index.shape == reading.probability.shape == reading.visible.shape == (5, 2)
    assert (reading.probability[:, 0] >= 1 / 3).all() and (reading.visible > 0).all() and (reading.visible < 1).all()
    assert reading.embedding.norm(dim=1).tolist() == pytest.approx([1.0] * 5)


def test_reading_does_not_depend_on_the_batch_and_leaves_the_mode_alone():
    one = judge().train()
    whole, parts = one.read(pictures(5)), one.read(pictures(5), batch=2)
    torch.testing.assert_close(whole.embedding, parts.embedding)
    torch.testing.assert_close(whole.log_probability["hat"], parts.log_probability["hat"])
    assert one.training and torch.equal(whole.visible, one.read(pictures(5)).visible)
    with pytest.raises(ValueError, match="no picture"):
        one.read(pictures(0))


def test_judge_tells_places_apart():
    """A mean over the whole map could not: the same square at two places."""
    one = judge()
    left, right = torch.full((2, 1, 3, 32, 32), -1.0)
    left[..., 8:16, 0:8], right[..., 8:16, 24:32] = 1, 1
    assert not torch.allclose(one.read(left).log_probability["hat"], one.read(right).log_probability["hat"], atol=1e-4)


def test_saved_judge_comes_back_and_saves_the_same_bytes(tmp_path):
    judge().save_pretrained(tmp_path / "one")
    again = Judge.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert again.attributes == ATTRIBUTES and list(again.attributes) == list(ATTRIBUTES) and not again.training
    close = judge().read(pictures(3)).log_probability["hat"]
    torch.testing.assert_close(again.read(pictures(3)).log_probability["hat"], close, atol=0.02, rtol=0)
    assert {p.suffix for p in (tmp_path / "one").iterdir()} == {".safetensors", ".json", ".md"}


def test_judge_loads_from_the_cache_as_every_model_does(tmp_path):
    judge().save_pretrained(tmp_path / "made")
    hub.install(tmp_path / "cache", "harald/mini-judge", tmp_path / "made")
    loaded = hub.load(Judge, tmp_path / "cache", ModelRef("harald/mini-judge"))
    expected = Judge.from_pretrained(tmp_path / "made").read(pictures(2))
    assert torch.equal(loaded.read(pictures(2)).embedding, expected.embedding)


def test_folder_without_a_judge_or_with_misfitting_weights_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no judge"):
        Judge.from_pretrained(tmp_path / "empty")
    judge().save_pretrained(tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "width": 8}))
    with pytest.raises(ModelError, match="holds no judge"):
        Judge.from_pretrained(tmp_path / "other")


def test_full_size_stays_small():
    dozen = {f"attribute {number}": tuple("abcdefghijk") for number in range(12)}  # more classes than the real table
    assert sum(p.numel() for p in new(dozen, side=128, seed=0).parameters()) <= 1_600_000


@pytest.mark.skipif(importlib.util.find_spec("dlib") is not None, reason="the extra is installed")
def test_face_model_without_its_extra_says_what_to_install():
    with pytest.raises(ModelError, match=r"needs the package dlib(.|\n)*\[faces\]"):
        FaceModel()

"""Masks of small worn things, and what a patch weighs by them."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from harald.config import Data
from harald.data.parts import mask_file, patch_weights
from harald.data.scan import scan
from harald.errors import DatasetError
from tests.data.folders import memory_state, write_state

PATCHES = 16


def view(folder, mask: np.ndarray | None = None, size: tuple[int, int] = (64, 64)):
    """A view of 64 x 64 pixels unless said otherwise, (width, height)."""
    image = folder / "photo_view_01.png"
    if mask is not None:
        Image.fromarray(mask).save(mask_file(image))
    return dataclasses.replace(memory_state(photo=1).views[0], image=image, width=size[0], height=size[1])


def test_patches_under_the_mask_weigh_so_many_times_as_much_and_the_mean_is_one(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[0:16, 32:48] = 255  # the third patch of the first row, all of it
    mask[48:52, 0:4] = 255  # a sixteenth of the first patch of the last row
    mask[32:34, 0:4] = 255  # half as much of the one above
    weights = patch_weights(view(tmp_path, mask), PATCHES, 5.0)
    assert weights.mean().item() == pytest.approx(1)
    relative = (weights / weights[0]).view(4, 4)
    expected = torch.ones(4, 4)
    expected[0, 2], expected[3, 0], expected[2, 0] = 5, 5, 3
    torch.testing.assert_close(relative, expected, rtol=0, atol=0.05)


def test_mask_is_cut_as_its_picture_is(tmp_path):
    """The centre of a wide picture: what lies beside it is not drawn."""
    mask = np.zeros((64, 128), np.uint8)
    mask[:, :32] = 255
    assert torch.equal(patch_weights(view(tmp_path, mask, (128, 64)), PATCHES, 5.0), torch.ones(PATCHES))
    mask[:16, 32:48] = 255
    assert patch_weights(view(tmp_path, mask, (128, 64)), PATCHES, 5.0).argmax() == 0


def test_without_a_mask_all_patches_weigh_the_same(tmp_path):
    assert torch.equal(patch_weights(view(tmp_path), PATCHES, 5.0), torch.ones(PATCHES))


def test_mask_of_another_size_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"parts\.png has 32 x 32 pixels, its picture 64 x 64"):
        patch_weights(view(tmp_path, np.zeros((32, 32), np.uint8)), PATCHES, 5.0)


def test_mask_is_no_view_and_one_without_a_picture_is_a_stray_file(tmp_path):
    folder = write_state(tmp_path, 1)
    mask_file(folder / "photo_view_01.png").write_bytes(b"")
    mask_file(folder / "photo_view_77.png").write_bytes(b"")
    (found,) = scan({1: tmp_path}, Data())
    assert found.state is not None and len(found.state.views) == 4
    assert [(p.kind, p.file) for p in found.problems] == [("stray_file", "photo_view_77.parts.png")]

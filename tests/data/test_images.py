import numpy as np
import pytest
import torch
from PIL import Image

from harald.data.images import load_picture, target_tensor, within_pixels
from harald.errors import DatasetError
from tests.data.folders import PNG


def test_transparent_parts_become_white(tmp_path):
    for mode, colour in (("RGBA", (255, 0, 0, 0)), ("LA", (0, 0))):
        Image.new(mode, (4, 4), colour).save(tmp_path / "a.png")
        assert load_picture(tmp_path / "a.png").getpixel((0, 0)) == (255, 255, 255)
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert load_picture(tmp_path / "a.png").getpixel((0, 0)) == pytest.approx((255, 127, 127), abs=1)


def test_palette_with_transparency_and_sixteen_bits_are_read(tmp_path):
    palette = Image.new("P", (4, 4))
    palette.putpalette([10, 20, 30] + [0] * 765)
    palette.save(tmp_path / "p.png", transparency=0)
    assert load_picture(tmp_path / "p.png").getpixel((0, 0)) == (255, 255, 255)
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "s.png")
    assert load_picture(tmp_path / "s.png").getpixel((0, 0)) == (128, 128, 128)


def test_picture_is_turned_upright(tmp_path):
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert load_picture(tmp_path / "a.jpg").size == (4, 6)


@pytest.mark.parametrize("content", [PNG[: len(PNG) // 2], b"", b"not a picture", PNG[:40]])
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"bad\.png.*\n.*fix:"):
        load_picture(tmp_path / "bad.png")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        load_picture(tmp_path / "none.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [1000, 3000])  # PIL raises above twice its limit, warns above it
def test_decompression_bomb_is_refused(tmp_path, monkeypatch, limit):
    (tmp_path / "bomb.png").write_bytes(PNG)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DatasetError, match=r"bomb\.png"):
        load_picture(tmp_path / "bomb.png")


def test_target_is_the_centre_square_in_minus_one_to_one():
    picture = Image.new("RGB", (96, 32), "black")
    picture.paste("white", (32, 0, 64, 32))
    tensor = target_tensor(picture, 16)
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor[:, :, 4:12].min() > 0.99
    assert target_tensor(Image.new("RGB", (8, 8), "black"), 16).unique().tolist() == [-1.0]


def test_large_picture_is_scaled_down_and_small_one_is_left_alone():
    small = Image.new("RGB", (10, 10))
    assert within_pixels(small, 100) is small
    scaled = within_pixels(Image.new("RGB", (400, 100)), 10_000)
    assert scaled.size == (200, 50)
    for size in ((5000, 1), (999, 777), (3, 10_000)):
        width, height = within_pixels(Image.new("RGB", size), 1000).size
        assert width * height <= 1000

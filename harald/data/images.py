"""Picture files -> RGB pictures and tensors."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from harald.errors import DatasetError


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def load_picture(path: Path, content: bytes | None = None) -> Image.Image:
    """RGB, upright (EXIF), transparent parts on white. Raises DatasetError that names the file.

    content: the file's bytes, if they have been read already.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit and image.width * image.height > limit:
                raise DatasetError(
                    f"{path} has {image.width} x {image.height} pixels", f"scale it to at most {limit} in all"
                )
            image.load()
            return on_white(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DatasetError(f"{path} is too large: {error}", "scale it down") from error
    except UnidentifiedImageError as error:
        raise DatasetError(
            f"{path} is not a picture", "replace it, or run check_dataset to find all of these"
        ) from error
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist", "check the path") from error
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise DatasetError(
            f"{path} cannot be read: {error}",
            "replace it, or run check_dataset with data.verify_pixels to find all of these",
        ) from error


def on_white(image: Image.Image) -> Image.Image:
    """RGB of any mode; transparent parts become white."""
    if image.mode.startswith("I"):  # 16 bits a channel; PIL would clip it to white
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def target_tensor(image: Image.Image, size: int) -> Tensor:
    """[3, size, size] float32 in -1..1: the short side is scaled to `size`, then the centre is cut out."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(square, dtype=np.float32))
    return (pixels / 127.5 - 1.0).permute(2, 0, 1).contiguous()


def within_pixels(image: Image.Image, max_pixels: int) -> Image.Image:
    """Scaled down to at most `max_pixels` pixels, aspect kept; a smaller picture is returned as it is."""
    width, height = image.size
    if width * height <= max_pixels:
        return image
    factor = (max_pixels / (width * height)) ** 0.5
    size = max(1, int(width * factor)), max(1, int(height * factor))
    if size[0] * size[1] > max_pixels:  # a strip whose short side cannot shrink further
        size = min(size[0], max_pixels), min(size[1], max_pixels)
    return image.resize(size, Image.Resampling.LANCZOS)

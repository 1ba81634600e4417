"""Uploaded bytes -> a picture, or a clear no. Nothing is decoded before its size is known."""

import io
import struct
import warnings
import zlib

from PIL import Image, ImageOps

from harald.config import Serve
from harald.data.images import on_white, within_pixels
from harald.web.answers import Refused

FORMATS = ("PNG", "JPEG", "WEBP")
MPO = "MPO"  # what telephones write: a JPEG with further pictures behind it
MIN_SIDE = 16  # pixels
MAX_ASPECT = 20
MAX_SCANS = 100  # of a JPEG: each scan costs a pass over all pixels


def decode(data: bytes, number: int, limits: Serve, max_pixels: int) -> Image.Image:
    """RGB, upright, at most max_pixels. number: of the picture, for messages. Raises Refused (400, 413 or 415)."""
    what = f"Picture {number}"
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MAX_SCANS:
        raise Refused(400, f"{what} is a JPEG of too many scans. Save it again with an ordinary program.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        with image:
            _check(image, what, limits)
            image.load()
            return within_pixels(on_white(ImageOps.exif_transpose(image)), max_pixels)
    except Image.UnidentifiedImageError as error:
        raise Refused(415, f"{what} is not a PNG, JPEG or WebP.") from error
    except Image.DecompressionBombError as error:
        raise Refused(413, f"{what} has too many pixels.") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        KeyError,
        TypeError,
        OverflowError,
        zlib.error,
        struct.error,
    ) as e:
        raise Refused(400, f"{what} is damaged.") from e


def _check(image: Image.Image, what: str, limits: Serve) -> None:
    """By the header alone."""
    width, height = image.size
    if width * height > limits.picture_pixels:
        raise Refused(
            413, f"{what} has {width} x {height} pixels, at most {limits.picture_pixels / 1e6:g} million are read."
        )
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise Refused(400, f"{what} has {width} x {height} pixels; no person can be seen in that.")
    if image.format != MPO and getattr(image, "is_animated", False):
        raise Refused(400, f"{what} is an animation. Send a still picture.")

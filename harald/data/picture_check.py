"""Is this file a whole PNG? Answered from its first 33 and last 12 bytes, so that 160,000 pictures take seconds."""

import os
import stat
import struct
import zlib
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TRAILER = b"\x00\x00\x00\x00IEND\xaeB`\x82"
HEAD = 33  # signature 8, chunk IHDR: length 4, type 4, data 13, checksum 4
_SNIFF = {
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"RIFF": "WebP or RIFF",
    b"BM": "BMP",
    b"<": "text (HTML, SVG or XML)",
}


class Unusable(Exception):
    """kind: a key of findings.KINDS; the message is the problem's detail."""

    def __init__(self, kind: str, detail: str):
        super().__init__(detail)
        self.kind = kind


def check(path: str, verify_pixels: bool) -> tuple[int, int]:
    """(width, height) of a PNG. Raises Unusable, or OSError if it cannot be read.

    Source: W3C PNG specification, sections 5.2 (signature), 11.2.1 (IHDR), 11.2.5 (IEND).
    """
    head, tail, length = _ends(path)
    if not head.startswith(SIGNATURE):
        raise Unusable(*_not_a_png(head, length))
    if length < HEAD + len(TRAILER):
        raise Unusable("truncated_picture", f"only {length} bytes")
    if head[12:16] != b"IHDR" or zlib.crc32(head[12:29]) != int.from_bytes(head[29:33], "big"):
        raise Unusable("truncated_picture", "its header is damaged")
    width, height = struct.unpack(">II", head[16:24])
    if not width or not height:
        raise Unusable("truncated_picture", f"its header says {width} x {height} pixels")
    limit = Image.MAX_IMAGE_PIXELS
    if limit and width * height > limit:
        raise Unusable("too_large", f"{width} x {height} pixels, at most {limit} in all")
    if tail != TRAILER and TRAILER not in Path(path).read_bytes():
        raise Unusable("truncated_picture", f"its end is missing ({length} bytes are there)")
    if verify_pixels or tail != TRAILER:  # something follows the end: harmless, if the picture decodes
        _decode(path)
    return width, height


def _ends(path: str) -> tuple[bytes, bytes, int]:
    """First 33 bytes, last 12 bytes, length. Never blocks on a pipe that poses as a picture."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            raise Unusable("not_png", "a folder, a pipe or a device, not a file")
        size = info.st_size
        return os.pread(handle, HEAD, 0), os.pread(handle, len(TRAILER), max(0, size - len(TRAILER))), size
    finally:
        os.close(handle)


def _not_a_png(head: bytes, length: int) -> tuple[str, str]:
    if not length:
        return "truncated_picture", "0 bytes"
    if SIGNATURE.startswith(head):
        return "truncated_picture", f"only {length} bytes"
    seems = next((f", it looks like {name}" for start, name in _SNIFF.items() if head.startswith(start)), "")
    return "not_png", f"it begins with {head[:8].hex(' ')}{seems}"


def _decode(path: str) -> None:
    try:
        with Image.open(path) as image:
            image.load()
    except (UnidentifiedImageError, SyntaxError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise Unusable("truncated_picture", f"it does not decode: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise Unusable("truncated_picture", f"it does not decode: {error}") from error

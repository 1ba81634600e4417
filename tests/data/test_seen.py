"""Which picture files are taken to be unchanged."""

import hashlib
import os
import time

import pytest

from harald.data.seen import SETTLED, look

OLD = time.time_ns() - 10 * SETTLED


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "photo_view_01.png"
    path.write_bytes(b"picture")
    os.utime(path, ns=(OLD, OLD))
    return path


def test_file_with_the_same_size_and_time_is_unchanged(image):
    seen, content = look(image)
    assert content == b"picture" and seen.sha256 == hashlib.sha256(content).digest()
    assert seen.fits(image.stat())


def test_file_with_another_size_or_time_is_not_taken_to_be_unchanged(image):
    seen, _ = look(image)
    os.utime(image, ns=(OLD, OLD + 1))
    assert not seen.fits(image.stat())
    image.write_bytes(b"longer picture")
    os.utime(image, ns=(OLD, OLD))
    assert not seen.fits(image.stat())


def test_young_file_is_never_taken_to_be_unchanged(image):
    """It may change again within the same tick of the clock, to other bytes of the same size."""
    os.utime(image)
    seen, _ = look(image)
    assert not seen.fits(image.stat())


def test_file_of_the_future_is_never_taken_to_be_unchanged(image):
    later = time.time_ns() + 10 * SETTLED
    os.utime(image, ns=(later, later))
    assert not look(image)[0].fits(image.stat())

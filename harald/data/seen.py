"""What a picture file held when it was last read, and whether it still does.

A file that has the size and modification time that it had when it was hashed is taken to be unchanged, as git and make
do; any other file is hashed again. A file that was younger than SETTLED when it was hashed is not trusted, because it
may change again within one tick of the clock. So only a tool that changes a picture, keeps its size and sets its time
back goes unnoticed.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple

SETTLED = 10 * 10**9  # nanoseconds
NEVER = -1  # the modification time of what is not trusted


class Seen(NamedTuple):
    """size: bytes; mtime_ns: nanoseconds since 1970, or NEVER; sha256: of the file's bytes."""

    size: int
    mtime_ns: int
    sha256: bytes

    def fits(self, file: os.stat_result) -> bool:
        return (self.size, self.mtime_ns) == (file.st_size, file.st_mtime_ns)


def look(image: Path) -> tuple[Seen, bytes]:
    """Read a file: what it holds, and its bytes. Raises OSError."""
    content = image.read_bytes()
    file = image.stat()  # after reading: a file that has changed meanwhile is young
    settled = file.st_size == len(content) and file.st_mtime_ns < time.time_ns() - SETTLED
    return Seen(len(content), file.st_mtime_ns if settled else NEVER, hashlib.sha256(content).digest()), content


def picture_name(image: Path) -> str:
    """<state_id>/<file>: the same wherever the data set is mounted."""
    return f"{image.parent.name}/{image.name}"

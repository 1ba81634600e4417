"""Writing to a disk that may be full or away for a while."""

import errno
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from harald.errors import TrainingError

log = logging.getLogger(__name__)

WAITS = (1.0, 5.0, 20.0, 60.0)  # seconds before each new try
_MAY_PASS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOENT, errno.ETIMEDOUT, errno.EROFS}


def persist(attempt: Callable[[], None], what: str, folder: Path, size: int) -> None:
    """Write, and try again with growing waits where the disk is at fault. `attempt` cleans up after itself.

    folder: of the run, for the free space; size: bytes that are to be written. Raises TrainingError when it stays so.
    """
    for wait in (*WAITS, None):
        try:
            return attempt()
        except OSError as error:
            if error.errno not in _MAY_PASS:
                raise
            if wait is None:
                raise TrainingError(
                    f"{what} in {folder} cannot be written ({error.strerror}) after {len(WAITS) + 1} tries: "
                    f"it takes {size / 2**20:.1f} MiB, {_free(folder)}",
                    "free space or bring the disk back, then start the job again: it goes on from its last checkpoint",
                ) from error
            log.warning("%s cannot be written (%s): tried again in %.0f s", what, error.strerror, wait)
            time.sleep(wait)
    return None


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 2**20:.1f} MiB are free"
    except OSError as error:
        return f"the disk does not answer ({error.strerror})"

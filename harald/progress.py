"""How far a job is: for the run's status at every step, and for the log every few seconds."""

import logging
import time

import torch

from harald.runtime import Session

log = logging.getLogger(__name__)


class Progress:
    """A log line every few seconds: done of total, speed, time left, memory, cost. The session hears of every unit.

    start: what was done before this start; it counts for no speed. unit: singular, such as 'step'.
    """

    def __init__(self, session: Session, total: int, unit: str, start: int = 0, every: float = 10.0):
        self.session, self.total, self.unit, self.start, self.every = session, total, unit, start, every
        self.began = self.last = time.monotonic()
        self.samples = 0
        session.progress(start, total, unit)

    def update(self, done: int, said: str = "", samples: int = 0) -> None:
        """said: for the log line. samples: done since the last call, where they are another number than units."""
        self.samples += samples
        self.session.progress(done, self.total, self.unit)
        now = time.monotonic()
        if now - self.last < self.every and done != self.total:
            return
        self.last = now
        seconds, units = max(now - self.began, 1e-9), max(1, done - self.start)
        speed = f"{self.samples / seconds:.1f} samples/s" if self.samples else f"{units / seconds:.1f} {self.unit}s/s"
        facts = (
            f"{self.unit} {done}/{self.total}", said, speed, f"{_clock(seconds / units * (self.total - done))} left",
            _memory(), self.session.spent(),
        )  # fmt: skip
        log.info("%s", "  ".join(fact for fact in facts if fact))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def _memory() -> str:
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    import resource

    return f"RAM {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"

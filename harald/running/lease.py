"""One writer for a run folder, on disks without locks and between clocks that differ.

A lease is a file with a random name in it, the nonce. The last one written wins: whoever finds another nonce than its
own has lost the run, and must not write any more.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from harald.errors import RunError
from harald.runs import LEASE, write_json
from harald.runtime import Runtime


@dataclass(frozen=True)
class Owner:
    """key: the same for a process and for what goes on in its place (a retry on Modal). host, pid, started (seconds
    since 1970) name the process; host is empty where a process of that number cannot be looked up.
    """

    key: str
    host: str = ""
    pid: int = 0
    started: float = 0.0

    @classmethod
    def here(cls, call: str) -> "Owner":
        if call:
            return cls(call)
        host, pid, started = socket.gethostname(), os.getpid(), psutil.Process().create_time()
        return cls(f"{host}/{pid}/{started:.2f}", host, pid, started)

    @property
    def is_dead(self) -> bool:
        """As far as this machine can know; False for the processes of others."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else f"function call {self.key}"


@dataclass(frozen=True)
class Note:
    """What a lease file says. beat: counts signs of life; since, renewed: seconds since 1970, by the owner's clock."""

    owner: Owner
    nonce: str
    beat: int
    since: float
    renewed: float

    @classmethod
    def parse(cls, data: bytes | None) -> "Note | None":
        """None for no file, and for one that nobody can have written whole."""
        try:
            fields = json.loads(data or b"")
            owner = Owner(**fields.pop("owner"))
            return cls(owner, **fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def is_silent(self, silence: float) -> bool:
        """Its owner is dead, or its last sign of life is long ago by this machine's clock (or far in the future)."""
        return self.owner.is_dead or abs(time.time() - self.renewed) > silence


class Lease:
    """The right to write into a folder, from `take` to `release`. All methods may raise OSError."""

    def __init__(self, runtime: Runtime, folder: Path):
        self.runtime, self.file = runtime, folder / LEASE
        self.owner, self.nonce, self.beat, self.since = Owner.here(runtime.call), uuid.uuid4().hex, 0, time.time()

    def take(self) -> None:
        """Raises RunError if somebody else holds the folder, or takes it at the same time and wins."""
        found = self.read()
        if found and self._is_foreign(found) and found.is_silent(self.runtime.pace.silence) and not found.owner.is_dead:
            self._watch(found)
        with _one_at_a_time(self.file.parent):
            found = self.read()
            if found and self._is_foreign(found) and not found.is_silent(self.runtime.pace.silence):
                raise self._held_by(found)
            self._write()
        if self.runtime.pace.settle:
            time.sleep(self.runtime.pace.settle)
        self.check()

    def check(self) -> None:
        """Raises RunError if the folder has another owner by now."""
        found = self.read()
        if found is None or found.nonce != self.nonce:
            who = f"{found.owner} has taken it over" if found else "its lease is gone"
            raise RunError(
                f"run {self.file.parent.name!r} is not this process's any more: {who}",
                "nothing was written since; leave the run to its new owner, or start the job again when that has ended",
            )

    def renew(self) -> None:
        """A sign of life. Raises RunError like `check`."""
        self.check()
        self.beat += 1
        self._write()

    def release(self) -> None:
        """Free the folder, if it is still ours."""
        found = self.read()
        if found and found.nonce == self.nonce:
            self.file.unlink(missing_ok=True)
            self.runtime.commit()

    def read(self) -> Note | None:
        return Note.parse(self.runtime.fetch(self.file))

    def _is_foreign(self, found: Note) -> bool:
        return found.owner.key != self.owner.key

    def _watch(self, found: Note) -> None:
        """It looks old, but that may be the clock: who lives counts on. Raises RunError."""
        deadline = time.monotonic() + 2.5 * self.runtime.pace.beat
        while time.monotonic() < deadline:
            time.sleep(self.runtime.pace.poll)
            now = self.read()
            if now is not None and (now.nonce, now.beat) != (found.nonce, found.beat):
                raise self._held_by(now)

    def _held_by(self, found: Note) -> RunError:
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(found.since))
        seconds = max(0.0, time.time() - found.renewed)
        job = self.file.parent.parent.name
        return RunError(
            f"run {self.file.parent.name!r} of {job} is held by {found.owner} since {began} "
            f"(last sign of life {seconds:.0f} s ago)",
            f"choose another --run-name, or end that one (stop --job {job} --run-name {self.file.parent.name}); "
            f"if it is dead, start again when it was silent for {self.runtime.pace.silence:.0f} s",
        )

    def _write(self) -> None:
        note = Note(self.owner, self.nonce, self.beat, self.since, time.time())
        write_json(self.file, asdict(note))
        self.runtime.commit()


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Processes of this machine come one after the other. A volume has no locks: there `settle` decides."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

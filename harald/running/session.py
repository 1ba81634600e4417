"""The session of a job: it holds the run, gives signs of life, hears requests to stop and keeps the status."""

import contextlib
import dataclasses
import json
import logging
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from harald.config import Config
from harald.errors import RunError
from harald.running import price, status
from harald.running.lease import Lease
from harald.running.status import Status
from harald.runs import STOP
from harald.runtime import Runtime, Session

log = logging.getLogger(__name__)

TIME = "time"
RESERVE = 600.0  # seconds before a time-out in which the last step and its checkpoint are to be over


class Watched(Session):
    """Of one job, from its start to its end. A thread gives the signs of life, so that a long step is not silence."""

    def __init__(self, runtime: Runtime, job: str, preset: str):
        self.runtime, self.job = runtime, job
        self.began = time.monotonic()
        self.lease: Lease | None = None
        self.status = Status(job, "", preset, runtime.machine.gpu or device_name())
        self.earlier = dataclasses.replace(self.status)  # the sums of earlier starts
        self.elsewhere = 0.0  # seconds of other containers
        self.first: int | None = None  # unit that this start began with
        self.planned: int | None = None
        self._lost: RunError | None = None
        self._stop = ""  # why
        self._heeded = False  # the job asks whether it shall stop
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------ what a job uses
    @property
    def stopping(self) -> bool:
        self._heeded = True
        return bool(self._stop)

    def hold(self, folder: Path, config: Config, inputs: dict[str, Any]) -> None:
        assert self.lease is None, "a job has one run"
        lease = Lease(self.runtime, folder)
        lease.take()
        self.lease = lease
        if self._request(lease) is None:
            (folder / STOP).unlink(missing_ok=True)  # it was meant for another start
        found = status.read(folder)
        if found:
            self.earlier = found
            now = self.status
            now.score_name, now.score, now.completed = found.score_name, found.score, found.completed
            now.done, now.total, now.unit = found.done, found.total, found.unit
        self.status.run, self.status.starts = folder.name, self.earlier.starts + 1
        self.planned = price.planned(self.job, config, inputs, found)
        machine = price.with_parts(self.job, config, self.runtime.machine)
        log.info(price.estimate(folder.parent, self.status.preset, self.status.gpu, self.planned, machine))
        self._write_status(folder)
        self._thread = threading.Thread(target=self._live, args=(lease, folder), name="session", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._lost:
            raise self._lost
        if self.lease:
            try:
                self.lease.check()
            except RunError as error:
                self._lost = error
                raise

    def progress(self, done: int, total: int, unit: str) -> None:
        if self._lost:
            raise self._lost
        if self.first is None:
            self.first = done
        self.status.done, self.status.total, self.status.unit = done, total, unit

    def score(self, name: str, value: float, lower_is_better: bool = False) -> None:
        best = self.status.score if self.status.score_name == name else None
        if best is None or (value < best) == lower_is_better:
            self.status.score_name, self.status.score = name, value

    def spent(self) -> str:
        self._count()
        return price.money(self.status.cost)

    def add_seconds(self, seconds: float) -> None:
        self.elsewhere += seconds

    @contextlib.contextmanager
    def finishes_step(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _: object) -> None:
            self._stop = signal.Signals(number).name
            for each, handler in before.items():
                signal.signal(each, handler)  # the second one breaks off
            log.info("%s: this step is finished and written; once more breaks it off", self._stop)

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.runtime.call and self._stop.startswith("SIG"):
            raise KeyboardInterrupt  # the container is taken away: what comes in its place goes on from here

    # ------------------------------------------------------------ the job's end
    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        if self._thread:
            self._thread.join()
        if self.lease is None or self._lost:
            return  # nothing was held, or it is another's now
        self.status.state = "failed" if error else "done"
        if isinstance(error, KeyboardInterrupt) or (self._stop and self.status.done < self.status.total):
            self.status.state = "stopped"
        if error:
            self.facts()
        self.status.error = status.first_line(error) if error and self.status.state == "failed" else ""
        self.status.completed += self.status.state == "done" and self.planned != 0
        folder = self.lease.file.parent
        self._write_status(folder)
        try:
            (folder / STOP).unlink(missing_ok=True)
            self.lease.release()
        except OSError as trouble:
            log.warning("the lease of %s could not be freed (%s): it ends by itself", folder.name, trouble)
        if error is None and self._stop == TIME and self._heeded and self.status.state == "stopped":
            limit = price.duration(self.runtime.machine.timeout)
            raise RunError(
                f"the {limit} of this call are nearly over; what was done is written",
                "nothing: a new container goes on, or else the same command does",
            )

    def facts(self) -> dict[str, Any]:
        """Of this start, for the log and the job's result. cost: USD at list price, None where no price is known."""
        seconds, cost = self._worked(), self._cost()
        paid = price.money(cost)
        log.info("%s took %s%s", self.job, price.duration(seconds), f", {paid} at list price" if paid else "")
        return {"seconds": round(seconds, 1), "cost": cost}

    # ------------------------------------------------------------ the thread
    def _live(self, lease: Lease, folder: Path) -> None:
        pace = self.runtime.pace
        beaten = noted = time.monotonic()
        while not self._over.wait(pace.poll):
            now = time.monotonic()
            try:
                if not self._stop and self._request(lease) is not None:
                    self._stop = "request"
                    log.info("stop was asked for: what is under way is finished and written")
                if now - beaten >= pace.beat:
                    beaten = now
                    lease.renew()
            except RunError as error:
                self._lost = error
                return
            except OSError as error:
                log.warning("no sign of life could be given (%s): tried again", error)
            if not self._stop and self._is_late(now):
                self._stop = TIME
                log.info("the time-out comes near: what is under way is finished and written")
            if now - noted >= pace.note:
                noted = now
                self._write_status(folder)

    def _is_late(self, now: float) -> bool:
        """A call that is cut off loses what it did since its last checkpoint. Of short time-outs the last tenth."""
        limit = self.runtime.machine.timeout
        return bool(limit) and now - self.began > limit - min(RESERVE, limit / 10)

    def _request(self, lease: Lease) -> dict[str, Any] | None:
        """A request to stop that is meant for this owner, whichever container it is in."""
        try:
            request = json.loads(self.runtime.fetch(lease.file.with_name(STOP)) or b"null")
        except ValueError:
            return None
        return request if request and request.get("owner") == lease.owner.key else None

    # ------------------------------------------------------------ the status
    def _worked(self) -> float:
        return time.monotonic() - self.began + self.elsewhere

    def _cost(self) -> float | None:
        machine, here = self.runtime.machine, time.monotonic() - self.began
        if machine.price is None or (self.elsewhere and machine.part is None):
            return None
        return round(machine.price * here + (machine.part or 0.0) * self.elsewhere, 4)

    def _count(self) -> None:
        """Sums go on over all starts of the run, whatever an earlier one ended with."""
        seconds, now = self._worked(), self.status
        cost, before = self._cost(), self.earlier.cost
        now.seconds = round(self.earlier.seconds + seconds, 1)
        now.cost = None if cost is None or before is None else round(before + cost, 4)
        worked = (self.planned or 0) if now.state == "done" else 0
        now.units = self.earlier.units + (worked if self.first is None else now.done - self.first)

    def _write_status(self, folder: Path) -> None:
        self._count()
        try:
            self.status.write(folder)
        except OSError as error:
            log.warning("the status could not be written (%s)", error)


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()})"

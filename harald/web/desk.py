"""One job at a time on the GPU, the others wait in line, and the line has an end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harald.web.answers import Refused

PULSE = 0.3  # seconds between two lines of a stream; a lost connection shows at the next one

Work = Callable[["Place"], dict[str, Any]]


class Left(Exception):
    """The visitor has gone: the work ends at its next step."""


class Desk:
    """places: how many visitors may be inside, from the first byte of an upload to the last of an answer."""

    def __init__(self, places: int):
        self.places = places
        self.inside: set[Place] = set()
        self.line: list[Place] = []  # in the order of arrival; the first is being served
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")

    def enter(self) -> "Place":
        """Before anything of the request is read. Raises Refused (503)."""
        if len(self.inside) >= self.places:
            raise Refused(503, f"Busy: {len(self.inside)} visitors are being served or wait. Try again in a moment.")
        place = Place(self)
        self.inside.add(place)
        return place


class Place:
    """A visitor's place, kept until `leave`."""

    def __init__(self, desk: Desk):
        self.desk, self.progress, self.left = desk, 0.0, False
        self.future: asyncio.Future[dict[str, Any]] | None = None

    def step(self, share: float) -> None:
        """Called by the work, in its thread. Raises Left."""
        if self.left:
            raise Left
        self.progress = share

    async def serve(self, work: Work) -> AsyncIterator[dict[str, Any]]:
        """How it stands, again and again, until the work is done."""
        self.desk.line.append(self)
        self.future = asyncio.get_running_loop().run_in_executor(self.desk.worker, work, self)
        while not self.future.done():
            ahead = self.desk.line.index(self)
            yield {"waiting": ahead, "of": len(self.desk.line)} if ahead else {"progress": round(self.progress, 3)}
            await asyncio.wait([self.future], timeout=PULSE)

    async def outcome(self) -> dict[str, Any] | BaseException:
        """What the work gave, or what it raised."""
        assert self.future is not None, "served first"
        (outcome,) = await asyncio.gather(self.future, return_exceptions=True)
        return outcome

    def leave(self) -> None:
        """Gives the place back. Work that has not begun never will, work that has ends at its next step."""
        self.left = True
        self.desk.inside.discard(self)
        if self.future is not None:
            self.future.cancel()
        if self in self.desk.line:
            self.desk.line.remove(self)

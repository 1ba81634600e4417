"""Reading ahead: threads wait for a network volume while the items before are worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

READERS = 8  # threads; a local disk gains little by them
WAITING = 32  # results that wait at most: memory does not grow with the number of items


def ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """function(item) for every item, in order. What the function raises is raised here."""
    with ThreadPoolExecutor(READERS) as readers:
        waiting: deque[Future[R]] = deque()
        for item in items:
            waiting.append(readers.submit(function, item))
            if len(waiting) > WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

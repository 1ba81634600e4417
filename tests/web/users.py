"""Many visitors at once: each gets a picture or a clear "busy", and who waits is told how long the line is.

python -m tests.web.users --into docs/results/production.json
"""

import argparse
import asyncio
import json
import logging
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import results
from tests.web.server import AUTH, form, picture, running, studio

log = logging.getLogger(__name__)

WIDE = httpx.Limits(max_connections=None)
SECONDS = 300.0


@dataclass
class Crowd:
    """What happened to the visitors. told: of those that waited, how many heard their place and the line's length."""

    answered: int = 0
    busy: int = 0
    crashed: int = 0
    waited: int = 0
    told: int = 0
    longest: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, visitor: int, status: int, text: str) -> None:
        """One answer: lines of JSON, or one object with the reason."""
        try:
            states = [json.loads(line) for line in text.splitlines()]
        except ValueError:
            states = []
        last = states[-1] if states else {}
        if status == 200 and ("pictures" in last or "person" in last):
            self.answered += 1
        elif status == 503 and "Busy" in last.get("error", "") and "Try again" in last["error"]:
            self.busy += 1
        else:
            self.crashed += 1
            self.problems.append(f"visitor {visitor}: {status} {text[:200]}")
        lengths = [state["of"] for state in states if state.get("waiting")]
        self.waited += bool(lengths)
        self.told += bool(lengths) and all(state["of"] > state["waiting"] for state in states if "waiting" in state)
        self.longest = max([self.longest, *lengths])


async def visit(client: httpx.AsyncClient, number: int, draw: random.Random) -> tuple[int, str]:
    """Some draw, some make a person file of one or two pictures."""
    if draw.random() < 0.7:
        answer = await client.post("/api/draw", files=form(prompt="a park", seed=str(number)))
    else:
        files = [("f", ("f", picture(draw.choice((64, 600)), seed=number + i))) for i in range(draw.choice((1, 2)))]
        answer = await client.post("/api/person", files=files, data={"consent": "yes"})
    return answer.status_code, answer.text


async def crowd(address: str, users: int, seed: int) -> Crowd:
    """All at once; then one more, whom the page still serves."""
    draw, seen = random.Random(seed), Crowd()
    async with httpx.AsyncClient(base_url=address, headers=AUTH, timeout=SECONDS, limits=WIDE) as client:
        answers = await asyncio.gather(*(visit(client, n, draw) for n in range(users)), return_exceptions=True)
        for number, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                seen.crashed += 1
                seen.problems.append(f"visitor {number}: {type(answer).__name__}: {answer}")
            else:
                seen.note(number, *answer)
        after = await client.post("/api/draw", files=form(prompt="a park"))
        if after.status_code != 200:
            seen.crashed += 1
            seen.problems.append(f"afterwards: {after.status_code} {after.text[:200]}")
    return seen


def rows(seen: Crowd, users: int, places: int) -> list[dict[str, Any]]:
    note = f"{seen.answered} answered, {seen.busy} told that it is busy, {places} places; longest line {seen.longest}"
    values = (
        (f"users: answered or told that it is busy, of {users} at once", users, ">=", seen.answered + seen.busy),
        (f"users: answered, of {users} at once", places, ">=", seen.answered),
        (f"users: crashes, of {users} at once", 0, "<=", seen.crashed),
        ("users: waited and were not told the length of the line", 0, "<=", seen.waited - seen.told),
    )
    return results.compared(values, note=note)


def measure(users: int, seed: int, places: int = 0) -> tuple[Crowd, int]:
    """places: 0 for the preset's. Returns what was seen, and the number of places."""
    made = studio(**({"places": places} if places else {}))
    with running(made) as address:
        return asyncio.run(crowd(address, users, seed)), made.config.serve.places


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.web.users", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, help="result file; rows of other names in it are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--users", type=int, default=50)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    seen, places = measure(flags.users, flags.seed)
    for problem in seen.problems:
        log.info("%s", problem)
    measured = rows(seen, flags.users, places)
    log.info("%s", measured[0]["note"])
    results.conclude(measured, flags.into, flags.seed)


if __name__ == "__main__":
    main()

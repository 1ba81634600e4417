"""Who is who: `people.csv` in a base folder says which states are one person in several looks (twins)."""

import csv
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from harald.determinism import key
from harald.errors import DatasetError
from harald.records import State

PEOPLE, COLUMNS = "people.csv", ["state_id", "person"]


def with_people(states: Iterable[State], datasets: dict[int, Path]) -> list[State]:
    """The states, `identity` filled in where a table names theirs. A name means the same person in all base folders.

    Raises DatasetError for a table that cannot be read or that names a state twice.
    """
    who = {base: _read(path / PEOPLE) for base, path in datasets.items()}
    return [dataclasses.replace(state, identity=who[state.base].get(state.state_id, "")) for state in states]


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    advice = f"write one line a state under the header {','.join(COLUMNS)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error or 'it is empty'}", advice) from error
    if header != COLUMNS:
        raise DatasetError(f"{path} begins with {','.join(header)!r}", advice)
    people: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(COLUMNS) or not all(row):
            raise DatasetError(f"{path}, line {number}: {','.join(row)!r}", advice)
        if row[0] in people:
            raise DatasetError(f"{path}, line {number} names {row[0]} again", "keep one line for each state")
        people[row[0]] = row[1]
    return people


def split_key(state: State) -> str:
    """What decides a state's split: its person, so that twins are never on both sides; else the state itself."""
    return state.identity or state.state_id


def at_most(states: Sequence[State], most: int, seed: int) -> list[State]:
    """Up to `most` of the states (0: all), whole persons, in the order given.

    Which ones, only the seed and the persons decide: those of a smaller number are among those of a larger one, and a
    data set that grows keeps the order of the persons it had. Raises DatasetError if there is room for nobody.
    """
    if not most:
        return list(states)
    sizes, kept, room = Counter(map(split_key, states)), set[str](), most
    for person in sorted(sizes, key=lambda person: key(seed, "at most", person)):
        room -= sizes[person]
        if room < 0:
            break
        kept.add(person)
    if not kept:
        raise DatasetError(
            f"data.max_states is {most}, and the first person of {len(sizes)} alone has {most - room} states",
            f"use {most - room} or more",
        )
    return [state for state in states if split_key(state) in kept]


def siblings(states: Iterable[State]) -> dict[str, list[State]]:
    """state_id -> the other states of the same person; people that no table names have none."""
    by_person: dict[str, list[State]] = {}
    for state in states:
        if state.identity:
            by_person.setdefault(state.identity, []).append(state)
    return {
        state.state_id: [other for other in group if other is not state]
        for group in by_person.values()
        for state in group
    }

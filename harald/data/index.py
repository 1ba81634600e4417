"""The states that a job works on, read from the folders."""

import logging
from collections import Counter

from harald.config import Config
from harald.data.findings import Problem
from harald.data.manifest import load_states
from harald.data.people import with_people
from harald.data.scan import STATE_ID, scan
from harald.errors import DatasetError, did_you_mean
from harald.records import State
from harald.runs import find_run
from harald.runtime import Runtime

log = logging.getLogger(__name__)


def states_for(runtime: Runtime, config: Config) -> list[State]:
    """Every usable state, sorted by base folder and number. Raises DatasetError if there is none.

    With data.manifest they come from that run of check_dataset, which spares a network volume a read of every file.
    """
    if config.data.manifest:
        manifest = find_run(runtime, "check_dataset", config.data.manifest) / "manifest.parquet"
        return with_people(load_states(manifest, runtime.datasets), runtime.datasets)
    states: list[State] = []
    counts: Counter[str] = Counter()
    first: list[Problem] = []
    for found in scan(runtime.datasets, config.data):
        counts.update(problem.kind for problem in found.problems)
        first.extend(found.problems[: max(0, 5 - len(first))])
        if found.state:
            states.append(found.state)
    if not states:
        raise no_usable_state(runtime, first)
    if counts:
        log.warning(
            "data set: %s; check_dataset lists them", ", ".join(f"{n} x {kind}" for kind, n in counts.most_common())
        )
    log.info("data set: %d states, %d views", len(states), sum(len(state.views) for state in states))
    return with_people(states, runtime.datasets)


def no_usable_state(runtime: Runtime, first: list[Problem]) -> DatasetError:
    """first: a few problems to show."""
    folders = (
        ", ".join(str(path) for _, path in sorted(runtime.datasets.items())) or f"none under {runtime.root}/dataset"
    )
    lines = "".join(f"\n    {p.kind} {p.place}: {p.detail}" for p in first)
    return DatasetError(
        f"there is no usable state in the base folders: {folders}{lines}",
        "put seed_<number> folders there; check_dataset shows what is wrong, demo_dataset writes a first set",
    )


def find_state(states: list[State], state_id: str) -> State:
    """Raises DatasetError for an id that is unknown or is not seed_<number>."""
    if not STATE_ID.fullmatch(state_id):
        raise DatasetError(f"--state-id is {state_id!r}", "use the name of a state's folder: seed_<number>")
    by_id = {state.state_id: state for state in states}
    if state_id not in by_id:
        raise DatasetError(f"there is no usable state {state_id} among {len(states)}", _advice(state_id, list(by_id)))
    return by_id[state_id]


def _advice(state_id: str, known: list[str]) -> str:
    advice = did_you_mean(state_id, known)
    if not advice.startswith("did you mean") and len(known) > 8:
        advice = f"known: {', '.join(known[:8])}, ..."
    return f"{advice}; if its folder is there, check_dataset says what is wrong with it"

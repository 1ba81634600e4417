"""Panels of synthetic persons: the truth about every view is known."""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

import torch

from harald import runs
from harald.config import Config, Pretrain
from harald.errors import ConfigError
from harald.evaluation.panel import HIDDEN, Panel, Relation, hiding_cells
from harald.proving_ground.dataset import Place, Plan, Written, make, renderers
from harald.proving_ground.persons import ATTRIBUTES, SOMETIMES_HIDDEN, person, state_id
from harald.records import State, View

LOOK_ALIKES_FROM = 1_000_000  # far from the twins: the same number may be the same person in the same look
HIDING_FROM = 2_000_000  # far from both
CANDIDATES, AT_ONCE = 256, 8  # states that are rendered in search of one that hides an attribute, and side by side
UNTRAINED_FROM = 10_000_000  # held-in states that no training draws: demo_dataset writes at most 100,000

Made = tuple[State, torch.Tensor]  # and what each view shows, int64 [views, A]


def held_out_panel(config: Config, folder: Path) -> Panel:
    """Twins, then look-alikes, of persons that no training has seen; the pictures are written into the folder."""
    settings = config.evaluate
    twins = rendered_states(config, folder, range(settings.states), held_out=True)
    numbers = range(LOOK_ALIKES_FROM, LOOK_ALIKES_FROM + settings.look_alikes)
    alike = rendered_states(config, folder, numbers, held_out=True, look_alikes=True)
    return panel(config, [*twins, *alike], [*_all("twin", len(twins)), *_all("look-alike", len(alike))])


def hiding_panel(config: Config, folder: Path) -> Panel:
    """`evaluate.hiding_states` held-out states for each attribute that some of their views hide and others show: what
    more references are for. Fewer, where CANDIDATES do not have so many.
    """
    assert config.pretrain is not None, "checked before anything is rendered"
    with renderers(_workers(config.pretrain, AT_ONCE)) as executor:
        found = [
            made
            for attribute in SOMETIMES_HIDDEN
            for made in itertools.islice(_hiding(executor, config, folder, attribute), config.evaluate.hiding_states)
        ]
    unique = {state.state_id: (state, labels) for state, labels in found}
    return _strangers(list(unique.values()))


def _hiding(executor: Executor | None, config: Config, folder: Path, attribute: str) -> Iterator[Made]:
    """Every second state is of another person."""
    may_hide = (
        number
        for number in itertools.count(HIDING_FROM, 2)
        if SOMETIMES_HIDDEN[attribute](person(config.seed, number, held_out=True).look)
    )
    numbers = itertools.islice(may_hide, CANDIDATES)
    while some := list(itertools.islice(numbers, AT_ONCE)):
        for made in _rendered(executor, _plan(config, held_out=True), some, folder):
            if hiding_cells(_strangers([made]), attribute, config.evaluate.main_references, config.seed):
                yield made


def _strangers(made: Sequence[Made]) -> Panel:
    count = len(made)
    return Panel(
        attributes=ATTRIBUTES,
        states=tuple(state for state, _ in made),
        labels=tuple(labels for _, labels in made),
        people=tuple(range(count)),
        rivals=tuple((number + 1) % count for number in range(count)),
        relations=("stranger",) * count,
    )


def validation_panel(config: Config, folder: Path, states: int) -> Panel:
    """Twins of persons that training leaves out, though their stream is that of the trained ones."""
    made = rendered_states(config, folder, range(UNTRAINED_FROM, UNTRAINED_FROM + states))
    return panel(config, made, _all("twin", states))


def panel(config: Config, made: Sequence[Made], relations: Sequence[Relation]) -> Panel:
    """States and labels; states 2k and 2k + 1 are rivals. Raises ConfigError for an odd number of them."""
    if not made or len(made) % 2:
        raise ConfigError(
            f"evaluate.states is {config.evaluate.states}, evaluate.look_alikes {config.evaluate.look_alikes}",
            "use even numbers: twins and look-alikes come in pairs",
        )
    return Panel(
        attributes=ATTRIBUTES,
        states=tuple(state for state, _ in made),
        labels=tuple(labels for _, labels in made),
        people=tuple(number // 2 for number in range(len(made))),
        rivals=tuple(number ^ 1 for number in range(len(made))),
        relations=tuple(relations),
    )


def _all(relation: Relation, count: int) -> list[Relation]:
    return [relation] * count


def rendered_states(
    config: Config, folder: Path, numbers: Sequence[int], *, held_out: bool = False, look_alikes: bool = False
) -> list[Made]:
    """The states of these numbers, as files in the folder."""
    assert config.pretrain is not None, "checked before anything is rendered"
    with renderers(_workers(config.pretrain, len(numbers))) as executor:
        return _rendered(executor, _plan(config, held_out, look_alikes), numbers, folder)


def _plan(config: Config, held_out: bool, look_alikes: bool = False) -> Plan:
    assert config.pretrain is not None, "checked before anything is rendered"
    return Plan(config.seed, config.evaluate.views, config.pretrain.side, False, look_alikes, held_out)


def _rendered(executor: Executor | None, plan: Plan, numbers: Sequence[int], folder: Path) -> list[Made]:
    """executor: see `renderers`."""
    places = [Place(0, state_id(plan.seed, i), i) for i in numbers]
    made = list((executor.map if executor else map)(make, [plan] * len(places), places))
    return [_state(plan, place, one, folder) for place, one in zip(places, made, strict=True)]


def _workers(pretrain: Pretrain, count: int) -> int:
    return max(1, min(pretrain.workers, os.cpu_count() or 1, count))


def _state(plan: Plan, place: Place, made: Written, folder: Path) -> Made:
    someone = person(plan.seed, place.index, held_out=plan.held_out, views=plan.views, look_alikes=plan.look_alikes)
    said, home = someone.description(), folder / place.state_id
    for name, content in made.files.items():
        runs.write_bytes(home / name, content)
    views = tuple(
        View(
            domain=view.domain,
            number=view.number,
            image=home / f"{view.domain}_view_{view.number:02d}.png",
            prompt=someone.prompt(view),
            person_prompt=someone.prompt(view).replace(said, "<person>"),
            width=plan.side,
            height=plan.side,
        )
        for view in someone.views
    )
    labels = [
        [classes.index(row[name]) if row[f"{name}_seen"] else HIDDEN for name, classes in ATTRIBUTES.items()]
        for row in made.rows
    ]
    return State(place.state_id, place.base, views, said, "shared"), torch.tensor(labels)

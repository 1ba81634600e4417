from dataclasses import replace
from pathlib import Path

import torch

from harald.config import Evaluate
from harald.evaluation.panel import (
    HIDDEN,
    UNREADABLE,
    Cell,
    Panel,
    Truth,
    cells,
    hiding_cells,
    majority,
    references,
    target,
)
from harald.records import State, View
from tests.evaluation.readings import ATTRIBUTES

SETTINGS = Evaluate(references=(1, 2, 4), main_references=2)


def state(number: int, photos: int = 4, comics: int = 4) -> State:
    views = tuple(
        View(domain, n, Path(f"{domain}_{n}.png"), f"{domain} of a man", f"{domain} of <person>", 64, 64)
        for domain, count in (("photo", photos), ("comic", comics))
        for n in range(count)
    )
    return State(f"seed_{number}", 1, views)


def panel(*states: State) -> Panel:
    count = len(states)
    labels = tuple(torch.full((len(s.views), len(ATTRIBUTES)), n % 2) for n, s in enumerate(states))
    rivals = tuple(n ^ 1 for n in range(count))
    return Panel(ATTRIBUTES, states, labels, tuple(n // 2 for n in range(count)), rivals, ("twin",) * count)


def test_state_has_one_target_of_each_domain_seen_from_each_domain_and_never_among_its_references():
    p = panel(state(1), state(2))
    chosen = cells(p, SETTINGS, seed=0)
    assert len(chosen) == 8 and cells(p, SETTINGS, seed=0) == chosen != cells(p, SETTINGS, seed=1)
    for cell in chosen:
        assert cell.target not in cell.references and len(set(cell.references)) == len(cell.references)
        assert len({view.domain for view in references(p, cell, 4)}) == 1
        assert references(p, cell, 2) == references(p, cell, 4)[:2]
    assert len({target(p, cell) for cell in chosen}) == 4
    pairs = sorted(set(Truth.of(p, chosen).pairs))
    assert pairs == [("comic", "comic"), ("comic", "photo"), ("photo", "comic"), ("photo", "photo")]


def test_state_of_few_views_gives_the_cells_that_it_can():
    assert {len(c.references) for c in cells(panel(state(1, 1, 1), state(2, 1, 1)), SETTINGS, 0)} == {1}
    alone = cells(panel(state(1, 2, 0), state(2, 1, 0)), SETTINGS, 0)
    assert [(cell.state, len(cell.references)) for cell in alone] == [(0, 1)]


def test_truth_sets_a_target_against_the_look_of_the_rival():
    p = panel(state(1), state(2))
    p.labels[1][0] = HIDDEN  # one view shows nothing; the look is known from the others
    known = Truth.of(p, [cell for cell in cells(p, SETTINGS, 0) if cell.state == 0])
    assert (known.labels == 0).all() and (known.rivals == 1).all() and set(known.people.tolist()) == {0}
    assert known.pick([1, 2]).pairs == known.pairs[1:3] and len(known.pick([1, 2])) == 2


def test_majority_ignores_what_is_hidden_or_unreadable():
    labels = torch.tensor([[1, -1, -2], [2, -1, -2], [2, -2, 0]])
    assert majority(labels).tolist() == [2, HIDDEN, 0]


def test_panel_of_a_single_person_still_has_others():
    from harald.evaluation.arms import others

    p = panel(state(1), state(2), state(3), state(4))
    assert others(p) == [2, 2, 0, 0]
    assert others(replace(p, people=(0, 0, 0, 0))) == [0, 1, 2, 3]


def test_first_reference_hides_what_the_others_and_the_target_show():
    def made(*views: int, count: int = 3) -> list[Cell]:
        labels = torch.tensor(views)[:, None]
        someone = state(0, len(views), 0)
        return hiding_cells(
            Panel({"earrings": ("none", "hoops")}, (someone,), (labels,), (0,), (0,), ("stranger",)),
            "earrings",
            count,
            0,
        )

    (cell,) = made(1, HIDDEN, 1, HIDDEN, 1)
    assert cell.references[0] in (1, 3) and {*cell.references[1:], cell.target} == {0, 2, 4}
    (cell,) = made(1, HIDDEN, 1, HIDDEN)
    assert {cell.references[1], cell.target} == {0, 2} and {cell.references[0], cell.references[2]} == {1, 3}
    assert made(1, HIDDEN) == [], "no other reference shows it"
    assert made(1, 1, 1) == made(HIDDEN, HIDDEN) == made(1, UNREADABLE, 1) == []
    assert made(0, HIDDEN, 0, 0) == [], "no earrings are there to be hidden"
    assert made(1, HIDDEN, 1, count=1) == [], "one reference is not more than one"

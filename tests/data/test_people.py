import itertools
from dataclasses import replace

import pytest

from harald.config import Data
from harald.data.people import PEOPLE, at_most, siblings, split_key, with_people
from harald.data.scan import scan
from harald.errors import DatasetError
from tests.data.folders import memory_state
from tests.states import write_dataset


def states(*names):
    return [memory_state(int(name.removeprefix("seed_")), photo=2) for name in names]


def table(folder, text):
    (folder / PEOPLE).write_text(text)
    return {1: folder}


def test_states_of_one_person_are_siblings_and_share_a_split(tmp_path):
    bases = table(tmp_path, "state_id,person\nseed_1,anna\nseed_2,ben\nseed_3,anna\n")
    named = with_people(states("seed_1", "seed_2", "seed_3", "seed_4"), bases)
    assert [state.identity for state in named] == ["anna", "ben", "anna", ""]
    assert split_key(named[0]) == split_key(named[2]) == "anna" and split_key(named[3]) == "seed_4"
    found = {name: [s.state_id for s in others] for name, others in siblings(named).items()}
    assert found == {"seed_1": ["seed_3"], "seed_2": [], "seed_3": ["seed_1"]}


def test_without_a_table_nobody_is_known(tmp_path):
    (state,) = with_people(states("seed_1"), {1: tmp_path})
    assert state.identity == "" and siblings([state]) == {}


def twelve_people():
    """Of three states, two or one."""
    bases = [memory_state(number, photo=2) for number in range(1, 25)]
    people = [person for person, size in enumerate((3, 2, 1) * 4) for _ in range(size)]
    return [replace(state, identity=f"person {person}") for state, person in zip(bases, people, strict=True)]


def test_first_states_are_whole_persons_and_nested_and_the_seed_decides():
    states = twelve_people()
    chosen = [at_most(states, most, seed=0) for most in range(3, 25)]
    for most, few in enumerate(chosen, 3):
        names = {state.identity for state in few}
        assert few == [state for state in states if state.identity in names], "whole persons, in the order given"
        assert most - 3 < len(few) <= most
    for few, more in itertools.pairwise(chosen):
        assert set(few) <= set(more)
    assert chosen[-1] == at_most(states, 0, seed=0) == states
    assert at_most(states, 12, seed=0) != at_most(states, 12, seed=1)


def test_first_states_stay_first_in_a_data_set_that_grows_and_is_read_in_another_order():
    states = twelve_people()
    few = at_most(states, 12, seed=0)
    others = [memory_state(number, photo=2) for number in range(100, 110)]
    more = at_most([*others, *states[::-1]], 22, seed=0)
    assert set(at_most(states[::-1], 12, seed=0)) == set(few) <= set(more)


def test_number_that_leaves_room_for_nobody_is_refused_with_one_that_does():
    three = twelve_people()[:3]
    with pytest.raises(DatasetError, match=r"max_states is 2, .* has 3 states\n  fix: use 3 or more"):
        at_most(three, 2, seed=0)
    assert at_most(three, 3, seed=0) == three


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("state,who\nseed_1,anna\n", "begins with 'state,who'"),
        ("state_id,person\nseed_1\n", "line 2"),
        ("state_id,person\nseed_1,\n", "line 2"),
        ("state_id,person\nseed_1,anna\nseed_1,ben\n", "line 3 names seed_1 again"),
    ],
)
def test_damaged_table_is_an_error_that_says_where(tmp_path, text, said):
    with pytest.raises(DatasetError, match=said):
        with_people(states("seed_1"), table(tmp_path, text))


def test_table_is_no_stray_file(tmp_path):
    runtime = write_dataset(tmp_path, states=1)
    (runtime.datasets[1] / PEOPLE).write_text("state_id,person\n")
    assert [p.kind for found in scan(runtime.datasets, Data()) for p in found.problems if p.file == PEOPLE] == []

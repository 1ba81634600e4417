import pytest

from harald.config import Data
from harald.data.people import PEOPLE, siblings, split_key, with_people
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

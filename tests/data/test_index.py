import pytest

from harald import settings
from harald.data.index import find_state, states_for
from harald.errors import DatasetError
from harald.runtime import Runtime
from tests.data.folders import memory_state, write_state


def test_usable_states_are_read_from_all_bases(tmp_path):
    write_state(tmp_path / "dataset/1", 5)
    write_state(tmp_path / "dataset/2", 4)
    states = states_for(Runtime.local(tmp_path), settings.resolve("tiny"))
    assert [s.state_id for s in states] == ["seed_5", "seed_4"]


def test_no_usable_state_names_the_folders_and_what_is_wrong(tmp_path):
    write_state(tmp_path / "dataset/1", 5, views=0)
    (tmp_path / "dataset/1/seed_6").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"dataset/1[\s\S]*too_few_views 1/seed_6"):
        states_for(Runtime.local(tmp_path), settings.resolve("tiny"))
    with pytest.raises(DatasetError, match="none under"):
        states_for(Runtime.local(tmp_path / "nowhere"), settings.resolve("tiny"))


def test_state_is_found_by_its_id():
    states = [memory_state(i, photo=2) for i in (19456895, 3)]
    assert find_state(states, "seed_3") is states[1]


@pytest.mark.parametrize("bad", ["../..", "seed_", "seed_1/../2", "seed_x", "", "seed_1\n", "/etc/passwd"])
def test_what_is_no_state_id_is_refused(bad):
    with pytest.raises(DatasetError, match="seed_<number>"):
        find_state([memory_state(1, photo=2)], bad)


def test_unknown_id_gets_a_suggestion_and_never_a_list_of_thousands():
    states = [memory_state(i, photo=2) for i in range(19456000, 19456895)]
    with pytest.raises(DatasetError, match=r"did you mean 'seed_1945"):
        find_state(states, "seed_19456999")
    with pytest.raises(DatasetError) as error:
        find_state(states, "seed_7")
    assert len(str(error.value)) < 500

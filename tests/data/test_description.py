import pytest

from harald.data.description import FACE, GROUPS, read, without
from harald.proving_ground.persons import person

ALL = {FACE, *GROUPS}


def test_every_phrase_of_a_synthetic_person_has_its_group():
    """What each group says alone, put together again, is the whole description."""
    for index in range(200):
        someone = person(0, index)
        said = read(someone.description())
        assert said.head == someone.description().partition(" with ")[0]
        groups = {group for _, group in (*said.items, *said.clothes)}
        assert {"hair", "outfit"} <= groups <= ALL
        assert all("glasses" not in text or group == "worn" for text, group in said.items)
        left = without(someone.description(), ALL, "person")
        assert left == "person"


def test_nothing_dropped_is_the_very_same_text():
    text = "an odd, free text about Anna and her dog, with   spaces"
    assert without(text, set(), "person") == text
    assert without(text, {"hair"}, "person") == text


@pytest.mark.parametrize(
    ("text", "dropped", "left"),
    [
        ("a woman with red hair and round glasses, wearing a hat", {"worn"}, "a woman with red hair"),
        ("a woman with red hair, wearing a coat", {"hair"}, "a woman, wearing a coat"),
        ("a woman with red hair, wearing a coat", {"face"}, "person with red hair, wearing a coat"),
        ("a tall man, short beard, blue eyes", {"worn"}, "a tall man with blue eyes"),
        ("an old man with freckles and a bald head", {"face", "hair"}, "person"),
        ("Anna", {"hair"}, "Anna"),
    ],
)
def test_dropped_groups_are_silent(text, dropped, left):
    assert without(text, dropped, "person") == left

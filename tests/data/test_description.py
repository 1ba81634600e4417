import pytest

from harald.data.description import GROUPS, KINDS, check_groups, granted, read, wishes, without
from harald.errors import ConfigError
from harald.proving_ground.persons import person

ALL = set(GROUPS)


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


def test_a_group_named_after_a_kind_carries_that_kind_alone():
    text = "a woman with red hair, round glasses and a beard, wearing a coat and a hat"
    groups = ("face", "hair", "glasses", "worn", "outfit")
    assert without(text, {"glasses"}, "person", groups) == "a woman with red hair and a beard, wearing a coat and a hat"
    assert without(text, {"worn"}, "person", groups) == "a woman with red hair and round glasses, wearing a coat"
    assert without(text, {"face"}, "person", ("face", "outfit")) == "person, wearing a coat", "nobody else carries it"
    every = ("face", *(kind for kinds in KINDS.values() for kind in kinds))
    for index in range(100):
        described = person(0, index).description()
        for wish in wishes(described):
            left = without(described, {wish.kind}, "person", every)
            assert [w for w in wishes(described) if w.kind != wish.kind] == wishes(left)


def test_granted_wish_stands_in_the_place_of_what_was_said_of_its_kind():
    """Every wish of one synthetic person, granted to another one: it is said once, and all else as before."""
    for index in range(0, 200, 2):
        mine, yours = (person(0, number).description() for number in (index, index + 7))
        for wish in wishes(yours):
            text = granted(mine, wish)
            assert wish in wishes(text) and [w.kind for w in wishes(text)].count(wish.kind) == 1
            others = [w for w in wishes(mine) if w.kind != wish.kind]
            assert all(w in wishes(text) for w in others) and len(wishes(text)) == len(others) + 1
            assert without(text, {"hair", "worn"}, "person") == without(mine, {"hair", "worn"}, "person")


@pytest.mark.parametrize("names", [["face", "galsses"], ["all", "face"], ["person"]])
def test_group_that_no_description_speaks_of_is_refused(names):
    with pytest.raises(ConfigError, match="which is no part of a person"):
        check_groups(names)
    check_groups(["all"])
    check_groups(["face", "hair", "worn", "glasses", "tattoo"])

import torch

from harald.evaluation.override import override, override_rate
from harald.evaluation.panel import HIDDEN, Cell, Panel
from harald.proving_ground.persons import ATTRIBUTES
from tests.evaluation.readings import reading, truth
from tests.evaluation.test_panel import state

NAMES = list(ATTRIBUTES)
CELL = Cell(0, 0, (1,))


def panel(number: int = 1, **shown: str) -> Panel:
    """A state whose views show only what is named."""
    one = state(number)
    labels = torch.full((len(one.views), len(NAMES)), HIDDEN)
    for name, kind in shown.items():
        labels[:, NAMES.index(name)] = ATTRIBUTES[name].index(kind)
    return Panel(ATTRIBUTES, (one,), (labels,), (0,), (0,), ("twin",))


def wishes(count: int = 40, **shown: str) -> list:
    return [override(panel(number, **shown), CELL, seed=0) for number in range(count)]


def test_wish_is_another_class_of_something_that_is_shown_and_worn():
    asked = wishes(glasses="round", earrings="none")
    assert {wish.attribute for wish in asked} == {"glasses", "earrings"}
    for wish in asked:
        kind = ATTRIBUTES[wish.attribute][wish.wanted]
        assert kind not in ("none", "round")
        assert wish.text.startswith("photo of <person> with ") and kind.removesuffix("s") in wish.text
    assert wishes(glasses="round") == wishes(glasses="round")


def test_hair_keeps_its_colour_or_its_style_and_beards_are_asked_of_the_bearded():
    for wish in wishes(hair="bob", hair_colour="ginger"):
        if wish.attribute == "hair_colour":
            kind = ATTRIBUTES["hair_colour"][wish.wanted]
            assert kind != "ginger" and wish.text == f"photo of <person> with a {kind} bob"
        elif ATTRIBUTES["hair"][wish.wanted] != "bald":
            assert "ginger" in wish.text
    assert wishes(1, beard="none") == [None] and wishes(1, scene="park") == [None]
    assert wishes(1, beard="full")[0].attribute == "beard"
    assert wishes(1, hair_colour="ginger") == [None]  # the style is hidden, and cannot be said


def test_rate_is_the_share_of_wishes_that_the_judge_finds():
    known = truth([[0, 0, 0]] * 4)
    asked = [override(panel(n, glasses="none"), CELL, 0) for n in range(4)]
    asked = [type(w)("glasses", 1, w.said, w.text) for w in asked]
    seen = reading(torch.tensor([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 0]]))
    assert override_rate(seen, asked, known).value == 0.75
    assert override_rate(seen.pick([]), [], known.pick([])).count == 0

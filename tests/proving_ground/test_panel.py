import dataclasses
from pathlib import Path

import pytest
import torch

from harald import config
from harald.data.images import load_picture
from harald.errors import ConfigError
from harald.evaluation.override import COLOURS, WORDS
from harald.evaluation.panel import HIDDEN, hiding_cells
from harald.proving_ground.panel import held_out_panel, hiding_panel
from harald.proving_ground.persons import ATTRIBUTES, person, rendered
from harald.proving_ground.persons.look import COLOURS as DYES
from harald.proving_ground.persons.look import FRAMES

TINY = config.tiny()


def settings(**changes) -> config.Config:
    return dataclasses.replace(TINY, evaluate=dataclasses.replace(TINY.evaluate, **changes))


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    return held_out_panel(settings(states=2, look_alikes=2, views=4), tmp_path_factory.mktemp("panel"))


def test_pictures_and_labels_are_those_of_the_held_out_persons(panel):
    for number in range(2):
        one = rendered(0, number, held_out=True, views=4, side=64)
        assert torch.equal(panel.labels[number], torch.from_numpy(one.labels).long())
        views = panel.states[number].views
        assert [load_picture(view.image).tobytes() for view in views] == [image.tobytes() for image in one.images]
        assert [view.prompt for view in views] == [full for full, _ in one.prompts]
        assert [view.person_prompt.replace("<person>", "person") for view in views] == [s for _, s in one.prompts]


def test_twins_are_one_person_and_look_alikes_one_look(panel):
    assert panel.relations == ("twin", "twin", "look-alike", "look-alike")
    assert panel.people == (0, 0, 1, 1) and panel.rivals == (1, 0, 3, 2)
    looks = panel.looks()
    seen = (looks >= 0).all(0)
    state = torch.tensor([name not in ("scene", "expression", "pose", "domain") for name in ATTRIBUTES])
    assert (looks[0] != looks[1])[state & seen].any() and (looks[2] == looks[3])[state & seen].all()
    assert len({load_picture(view.image).tobytes() for state in panel.states for view in state.views}) == 16


def test_hiding_states_have_views_that_hide_what_others_show(tmp_path):
    c = settings(hiding_states=1, views=8)
    panel = hiding_panel(c, tmp_path / "one")
    found = {name: hiding_cells(panel, name, c.evaluate.main_references, c.seed) for name in ATTRIBUTES}
    assert {name for name, cells in found.items() if cells} == {"hair_colour", "necklace"} and len(panel.states) == 2
    for name, cells in found.items():
        column = list(ATTRIBUTES).index(name)
        for cell in cells:
            labels = panel.labels[cell.state][:, column]
            assert labels[cell.references[0]] == HIDDEN and labels[cell.target] >= 0 and labels[cell.references[1]] >= 0
    again = hiding_panel(c, tmp_path / "two")
    assert [state.state_id for state in again.states] == [state.state_id for state in panel.states]
    assert all(torch.equal(a, b) for a, b in zip(again.labels, panel.labels, strict=True))
    assert not hiding_panel(settings(hiding_states=0), tmp_path / "none").states


def test_odd_number_of_states_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"evaluate\.states is 3(.|\n)*pairs"):
        held_out_panel(settings(states=3, look_alikes=0, views=4), Path(tmp_path))


def test_words_of_an_override_are_those_of_the_persons_prompts():
    """Every wish, in some colour, is a phrase of a look that wears it."""
    look = person(0, 0).look
    pieces = {"glasses": "frame", "headwear": "headwear_colour", "hair": "hair_colour", "makeup": "lipstick"}
    for name, classes in WORDS.items():
        for kind, said in classes.items():
            colour = next(iter(COLOURS.get(kind, COLOURS.get(name, ("",)))))
            worn = {"fringe": False, "tips": "", "long_beard": False, "shadow": "violet", "metal": colour}
            worn |= {"earring": colour} if name == "earrings" else {}
            worn |= {pieces[name]: colour} if name in pieces else {}
            dressed = dataclasses.replace(look, **worn | ({} if name == "makeup" else {name: kind}))
            phrase = said.format(colour).removeprefix("with ").removeprefix("wearing ")
            assert phrase in [*dressed.phrases(), dressed.worn().split(" and ")[-1]], (name, kind)
    assert set(COLOURS["glasses"]) <= set(FRAMES) and set(COLOURS["headwear"]) <= set(DYES)

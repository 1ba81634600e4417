import dataclasses
import math

import pytest
import torch
from torch.nn.functional import one_hot

from harald import config
from harald.evaluation.seen import Classifier, Seeing, Seen
from harald.evaluation.validate import validate
from harald.proving_ground.panel import held_out_panel, rendered_states, validation_panel
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import judge
from tests.models import base, encoder

TINY = config.tiny()
CONFIG = dataclasses.replace(TINY, evaluate=dataclasses.replace(TINY.evaluate, states=2, views=4))


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    return validation_panel(CONFIG, tmp_path_factory.mktemp("panel"), states=2)


def test_panel_is_of_persons_that_neither_training_nor_the_held_out_panel_has(panel, tmp_path):
    held_out = held_out_panel(CONFIG, tmp_path / "held-out").states
    trained = [state for state, _ in rendered_states(CONFIG, tmp_path / "trained", range(4))]
    described = [state.person for state in (*panel.states, *held_out, *trained)]
    assert len(set(described)) == len(described)
    assert panel.relations == ("twin", "twin") and panel.rivals == (1, 0) and panel.people == (0, 0)


def test_validation_is_repeatable_and_disturbs_nothing(panel):
    seeing, ours = Classifier(judge.new(ATTRIBUTES, 64, seed=0, width=4).eval()), encoder()
    ours.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in ours.state_dict().items()}
    first = validate(base(), ours, panel, seeing, CONFIG, pictures=6, steps=2)
    assert set(first) == {"twin", "kept", *(f"kept {name}" for name in list(ATTRIBUTES)[:8])}
    assert 0.0 <= first["twin"] <= 1.0 and 0.0 <= first["kept"] <= 1.0
    assert torch.equal(torch.random.get_rng_state(), before) and ours.training
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert all(parameter.grad is None for parameter in ours.parameters())
    again = validate(base(), ours, panel, seeing, CONFIG, pictures=6, steps=2)
    assert all((math.isnan(first[name]) and math.isnan(again[name])) or first[name] == again[name] for name in first)


class Onlooker(Seeing):
    """Sees one look in every picture, and remembers the pictures."""

    attributes = ATTRIBUTES

    def __init__(self, look: torch.Tensor):
        self.look, self.shown = look, []

    def see(self, pictures):
        self.shown = [picture.tobytes() for picture in pictures]
        said = self.look.expand(len(pictures), -1)
        votes = {name: one_hot(said[:, n].clamp(min=0), len(c)) - 1.0 for n, (name, c) in enumerate(ATTRIBUTES.items())}
        return Seen(votes, said, None)


def test_judge_that_sees_one_look_in_everything_keeps_one_twin_and_loses_the_other(panel):
    score = validate(base(), encoder(), panel, Onlooker(panel.looks()[0]), CONFIG, pictures=8, steps=2)
    assert score["twin"] == 0.5


def test_pictures_are_drawn_with_the_tokens_of_the_encoder(panel):
    shown = []
    for seed in (0, 1, 0):
        judge_of_all = Onlooker(panel.looks()[0])
        validate(base(), encoder(seed), panel, judge_of_all, CONFIG, pictures=3, steps=2)
        shown.append(judge_of_all.shown)
    assert shown[0] == shown[2] and len(shown[0]) == 3 and not set(shown[0]) & set(shown[1])

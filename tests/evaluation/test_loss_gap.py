import numpy as np
import pytest

from harald import config
from harald.data.index import states_for
from harald.errors import DatasetError
from harald.evaluation.loss_gap import interval, split_views
from harald.jobs.evaluate import held_out
from tests.states import write_dataset


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return states_for(write_dataset(tmp_path_factory.mktemp("root"), states=6), config.tiny())


def test_interval_holds_the_mean_narrows_with_more_states_and_repeats():
    draws = np.random.default_rng(0).normal(1.0, 0.5, 400)
    few, many = interval(draws[:20], seed=0), interval(draws, seed=0)
    assert few["low"] < few["mean"] < few["high"]
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert interval(draws, seed=0) == many


def test_held_out_view_is_never_a_reference_and_the_seed_decides(states):
    c = config.tiny()
    for state in states:
        references, target = split_views(state, c)
        assert target not in references and 1 <= len(references) <= c.train.max_references
        assert {view.domain for view in references} == {target.domain}
        assert split_views(state, c) == (references, target)


def test_panel_is_of_validation_states_only(states):
    picked = held_out(states, config.tiny())
    assert len(picked) == 2
    with pytest.raises(DatasetError, match=r"0 of 4 states are set aside for validation, evaluate needs 2"):
        held_out([state for state in states if state not in picked], config.tiny())

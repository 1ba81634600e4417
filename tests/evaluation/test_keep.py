import math

import pytest
import torch

from harald.evaluation.keep import (
    attribute_keep,
    attribute_share,
    domain_gap,
    invented,
    right_gain,
    state_gain,
    state_keep,
    state_share,
)
from harald.evaluation.panel import HIDDEN, UNREADABLE
from tests.evaluation.readings import coin, many, perfect, reading, truth


def test_perfect_judge_and_perfect_drawings_keep_all_and_a_coin_keeps_what_chance_keeps():
    known = many()
    seen = perfect(known)
    assert state_keep(seen, known).value == state_share(seen, seen, known).value == 1.0
    assert attribute_keep(seen, known, "glasses").value == attribute_share(seen, seen, known, "glasses").value == 1.0
    assert state_keep(coin(known), known).value == pytest.approx(1 / 3, abs=0.05)
    assert state_gain(coin(known), seen, known).value == pytest.approx(-2 / 3, abs=0.05)


def test_state_is_the_mean_over_its_attributes_each_balanced_over_its_classes():
    known = truth([[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 1]])
    seen = reading(torch.tensor([[0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]]))
    assert attribute_keep(seen, known, "hair").value == 0.5  # all of one class, none of the other
    assert attribute_keep(seen, known, "glasses").value == 1.0
    assert state_keep(seen, known).value == 0.75  # and not the scene


def test_share_of_a_ceiling_that_is_no_better_than_chance_is_not_measured():
    known = many()
    blind = reading(torch.zeros_like(known.labels))
    assert math.isnan(attribute_share(perfect(known), blind, known, "hair").value)
    assert math.isnan(state_share(perfect(known), blind, known).value)


def test_share_divides_by_what_the_judge_reaches_on_the_same_cells():
    known = truth([[0, 0, 0], [1, 1, 1]] * 20)
    half = reading(torch.tensor([[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0]] * 10))
    assert state_keep(half, known).value == 0.75
    assert state_share(half, perfect(known), known).value == 0.75
    assert state_share(half, half, known).value == 1.0


def test_invented_counts_what_is_drawn_where_nothing_is_worn_and_seen():
    known = truth([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, -1, 0]])
    seen = reading(torch.tensor([[1, 0, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0]]))
    score = invented(seen, known, ["hair", "glasses"])
    assert score.value == 0.5  # of two bare faces; hair has no class none
    for answer in (UNREADABLE, HIDDEN):
        assert invented(reading(torch.full((4, 3), answer)), known, ["glasses"]).value == 0.0
    assert math.isnan(invented(seen, known, ["hair"]).value)


def test_gap_between_domains_is_what_crossing_loses_in_each_direction_alone():
    """From comic to photo half is lost, from photo to comic nothing."""
    kinds = [("photo", "photo"), ("comic", "photo"), ("comic", "comic"), ("photo", "comic")]
    known = truth([[0, 0, 0], [1, 1, 1]] * 40, pairs=tuple(kind for kind in kinds for _ in range(2)) * 10)
    seen = reading(torch.tensor([[0, 0, 0], [1, 1, 1], [0, 0, 0], [0, 0, 0], *[[0, 0, 0], [1, 1, 1]] * 2] * 10))
    assert domain_gap(seen, perfect(known), known, ("comic", "photo")).value == pytest.approx(0.5)
    assert domain_gap(seen, perfect(known), known, ("photo", "comic")).value == 0.0
    assert math.isnan(domain_gap(seen, perfect(known), known, ("sketch", "photo")).value)
    assert math.isnan(domain_gap(seen, reading(torch.zeros_like(known.labels)), known, ("comic", "photo")).value)


def test_gain_counts_where_the_target_shows_the_attribute():
    known = truth([[0, 1, 0], [0, 1, 0], [0, 1, 0], [0, -1, 0]])
    one = reading(torch.tensor([[0, 0, 0]] * 4))
    more = reading(torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 0], [1, 1, 0]]))
    gain = right_gain(more, one, known, "glasses")
    assert (gain.value, gain.count) == (pytest.approx(2 / 3), 3)
    assert right_gain(more, one, known, "hair").value == pytest.approx(-3 / 4)

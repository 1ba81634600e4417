import math

import pytest
import torch

from harald.evaluation.accuracy import (
    Score,
    attribute_table,
    auc,
    balanced_accuracy,
    identity_auc,
    relative,
    visible_table,
)
from harald.evaluation.judge import Reading


def test_balanced_accuracy_is_the_mean_recall_over_classes_that_occur_and_hidden_parts_do_not_count():
    truth = torch.tensor([0, 0, 0, 0, 2, 2, -1, -1])
    predicted = torch.tensor([0, 0, 0, 1, 2, 0, 1, 2])
    score = balanced_accuracy(predicted, truth, torch.zeros(8, dtype=torch.long))
    assert score == Score((3 / 4 + 1 / 2) / 2, 0.625, 0.625, 6)  # one person: the interval has nothing to vary


def test_interval_is_over_persons_and_not_over_pictures():
    """Many pictures of two persons say little about a third."""
    right = torch.tensor([1, 0]).repeat_interleave(500)  # one person always, the other never
    truth = torch.ones(1000, dtype=torch.long)
    few = balanced_accuracy(right, truth, torch.tensor([7, 3]).repeat_interleave(500))
    many = balanced_accuracy(right, truth, torch.arange(1000))
    assert (few.low, few.value, few.high) == (0.0, 0.5, 1.0)
    assert 0.46 < many.low < 0.48 and 0.52 < many.high < 0.54  # 0.5 +- 1.96 * sqrt(.25 / 1000)


def test_bootstrap_repeats_with_its_seed_and_differs_with_another():
    draw = torch.Generator().manual_seed(0)
    guess, truth, person = (torch.randint(n, (300,), generator=draw) for n in (3, 3, 40))
    assert balanced_accuracy(guess, truth, person, 5) == balanced_accuracy(guess, truth, person, 5)
    assert balanced_accuracy(guess, truth, person, 5).low != balanced_accuracy(guess, truth, person, 6).low


def test_nothing_seen_is_not_a_number_and_not_an_error():
    score = balanced_accuracy(torch.zeros(3), torch.full((3,), -1), torch.arange(3))
    assert math.isnan(score.value) and score.count == 0
    nobody = identity_auc(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert math.isnan(nobody.value) and nobody.count == 0
    one = identity_auc(torch.ones(2, 4), torch.arange(2), torch.arange(2))  # two strangers: nobody to recognise
    assert math.isnan(one.value) and math.isnan(one.low)


def test_area_under_the_curve_counts_ties_half():
    scores, positive = torch.tensor([3.0, 1.0, 2.0, 1.0]), torch.tensor([True, True, False, False])
    value = auc(scores, positive, (torch.zeros(4, dtype=torch.long),)).value
    assert value == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_identity_counts_only_pairs_of_different_states():
    """Two persons with two states each: own twins 1, cross pairs 0; a state's own pictures would score as well."""
    faces = torch.eye(2).repeat_interleave(4, 0)
    states, persons = torch.arange(4).repeat_interleave(2), torch.tensor([5, 9]).repeat_interleave(4)
    score = identity_auc(faces, states, persons)
    assert score.value == 1.0 and score.count == 6  # pairs of 4 states
    flat = identity_auc(torch.ones(8, 3), states, persons)
    assert flat.value == 0.5


def test_state_that_outweighs_the_face_scores_below_chance():
    looks = torch.eye(2).repeat(4, 1)  # states alternate between two looks; the face says nothing
    assert identity_auc(looks, torch.arange(8), torch.arange(8) // 2).value < 0.5


def test_tables_name_the_attributes_and_see_what_is_hidden():
    hair = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]).log()
    hat = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]).log()
    reading = Reading({"hair": hair, "hat": hat}, torch.tensor([[0.9, 0.1], [0.8, 0.9], [0.1, 0.8]]), torch.eye(3))
    labels, persons = torch.tensor([[0, -1], [1, 0], [-1, 1]]), torch.arange(3)
    table = attribute_table(reading, labels, persons)
    assert (table["hair"].value, table["hair"].count) == (1.0, 2)
    assert (table["hat"].value, table["hat"].count) == (0.5, 2)
    assert {name: score.value for name, score in visible_table(reading, labels, persons).items()} == {
        "hair": 1,
        "hat": 1,
    }


def test_relative_score_is_the_share_of_the_way_from_chance_to_the_ceiling():
    share = relative(Score(0.7, 0.6, 0.8, 10), Score(0.9, 0.85, 0.95, 10), floor=0.5)
    assert (share.value, share.low, share.high) == pytest.approx((0.5, 0.25, 0.75)) and share.count == 10

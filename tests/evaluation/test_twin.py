import math

import pytest
import torch

from harald.evaluation.panel import UNREADABLE
from harald.evaluation.twin import margins, twin_test
from tests.evaluation.readings import coin, many, perfect, reading, truth


def test_perfect_drawings_score_one_swapped_twins_zero_and_a_coin_about_half():
    known = many()
    assert twin_test(perfect(known), known).value == 1.0
    assert twin_test(reading(known.rivals), known).value == 0.0
    score = twin_test(coin(known), known)
    assert score.low < 0.5 < score.high and score.value == pytest.approx(0.5, abs=0.08)


def test_only_what_differs_and_is_shown_counts():
    known = truth([[1, 1, 0], [1, -1, 0], [-1, 2, 0], [1, 1, 0]], [[1, 2, 1], [1, 0, 1], [0, 2, 1], [-1, 1, 1]])
    found = margins(perfect(known), known)
    assert found[0] == pytest.approx(4.0)  # the glasses; the scene is no part of the state
    assert found[1:].isnan().all()  # hidden; hidden, and the same; nothing known of the rival, and the same
    score = twin_test(perfect(known), known)
    assert (score.value, score.count) == (1.0, 1)


def test_sure_attribute_outweighs_an_unsure_one():
    known = truth([[1, 1, 0]], [[2, 2, 0]])
    seen = reading(torch.tensor([[1, 2, 0]]))
    assert margins(seen, known)[0] == pytest.approx(0.0, abs=1e-6)
    seen.scores["hair"][0] = torch.tensor([-9.0, 0.0, -9.0])
    assert margins(seen, known)[0] == pytest.approx(5.0)


def test_unreadable_answers_are_a_tie_and_nothing_to_compare_is_no_number():
    known = truth([[1, 1, 0]] * 2, [[2, 2, 0]] * 2)
    assert twin_test(reading(torch.full((2, 3), UNREADABLE)), known).value == 0.5
    nothing = truth([[-1, -1, -1]] * 2, [[2, 2, 0]] * 2)
    assert math.isnan(twin_test(perfect(nothing), nothing).value)


def test_look_alikes_take_no_part():
    known = truth([[1, 1, 0]] * 2, [[2, 2, 0]] * 2, relations=("twin", "look-alike"))
    seen = reading(torch.tensor([[1, 1, 0], [2, 2, 0]]))
    assert (twin_test(seen, known).value, twin_test(seen, known).count) == (1.0, 1)


def test_interval_is_over_persons():
    """Four cells of one person are one draw: with two persons, one right and one wrong, anything from 0 to 1."""
    known = truth([[1, 1, 0]] * 8, [[2, 2, 0]] * 8, people=torch.arange(8) // 4)
    score = twin_test(reading(torch.tensor([[1, 1, 0]] * 4 + [[2, 2, 0]] * 4)), known)
    assert (score.value, score.low, score.high) == (0.5, 0.0, 1.0)

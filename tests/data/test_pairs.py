from collections import Counter

import pytest

from harald.config import Train
from harald.data.pairs import draw_domain, draw_pair, draw_states
from harald.errors import DatasetError
from tests.data.folders import memory_state

TRAIN = Train(targets_per_state=4, max_references=4, cross_domain_share=0.3)
SHAPES = [
    {"photo": 2},
    {"photo": 1, "comic": 1},
    {"photo": 1, "comic": 5},
    {"photo": 8, "comic": 8},
    {"a": 3, "b": 1, "photo": 2},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "train", [TRAIN, Train(max_references=1, targets_per_state=1), Train(max_references=9, targets_per_state=9)]
)
def test_pair_is_always_possible_and_in_bounds(shape, train):
    state = memory_state(**shape)
    for step in range(200):
        domain = sorted(shape)[step % len(shape)]
        pair = draw_pair(0, step, 0, state, train, domain)
        assert {view.domain for view in pair.targets} == {domain}
        assert not set(pair.references) & set(pair.targets)
        assert len(set(pair.references)) == len(pair.references) <= train.max_references
        assert len(set(pair.targets)) == len(pair.targets) <= train.targets_per_state
        assert set(pair.references) | set(pair.targets) <= set(state.views)


def test_pair_depends_on_its_arguments_only():
    state = memory_state(photo=8, comic=8)
    draws = [draw_pair(3, 5, 1, state, TRAIN, "photo") for _ in range(3)]
    assert draws[0] == draws[1] == draws[2]
    others = [
        draw_pair(4, 5, 1, state, TRAIN, "photo"),
        draw_pair(3, 6, 1, state, TRAIN, "photo"),
        draw_pair(3, 5, 2, state, TRAIN, "photo"),
    ]
    assert len({(p.references, p.targets) for p in (draws[0], *others)}) == 4


def test_number_of_references_is_uniform_and_crossing_has_its_share():
    state = memory_state(photo=8, comic=8)
    pairs = [draw_pair(0, step, 0, state, TRAIN, "photo") for step in range(2000)]
    counts = Counter(len(pair.references) for pair in pairs)
    assert sorted(counts) == [1, 2, 3, 4]
    assert min(counts.values()) > 420
    crossing = sum(pair.references[0].domain == "comic" for pair in pairs)
    assert 530 < crossing < 670
    assert all(len({view.domain for view in pair.references}) == 1 for pair in pairs)
    assert all(len(pair.targets) == 4 for pair in pairs)


def test_every_view_becomes_target_and_reference():
    state = memory_state(photo=4, comic=4)
    pairs = [draw_pair(0, step, 0, state, TRAIN, "photo") for step in range(300)]
    assert {view for pair in pairs for view in pair.targets} == set(state.in_domain("photo"))
    assert {view for pair in pairs for view in pair.references} == set(state.views)


def test_state_of_few_views_gives_up_targets_before_references():
    pairs = [draw_pair(0, step, 0, memory_state(photo=5), TRAIN, "photo") for step in range(200)]
    assert {(len(p.references), len(p.targets)) for p in pairs} == {(1, 4), (2, 3), (3, 2), (4, 1)}


def test_lone_view_of_a_domain_is_drawn_from_the_other_domain():
    train = Train(cross_domain_share=0.0)
    pair = draw_pair(0, 0, 0, memory_state(photo=1, comic=3), train, "photo")
    assert {view.domain for view in pair.references} == {"comic"}


@pytest.mark.parametrize(("shape", "domain"), [({"photo": 1}, "photo"), ({"photo": 3}, "comic")])
def test_impossible_pair_is_refused(shape, domain):
    with pytest.raises(DatasetError, match="seed_1"):
        draw_pair(0, 0, 0, memory_state(**shape), TRAIN, domain)


def test_domain_is_drawn_in_proportion_to_the_states_that_can_serve_it():
    states = [memory_state(i, photo=2, comic=2) for i in range(10)] + [memory_state(i, photo=2) for i in range(10, 30)]
    counts = Counter(draw_domain(0, step, states) for step in range(4000))
    assert 0.22 < counts["comic"] / 4000 < 0.28
    assert draw_domain(0, 7, states) == draw_domain(0, 7, states)
    with pytest.raises(DatasetError):
        draw_domain(0, 0, [memory_state(photo=1)])


@pytest.mark.parametrize(("size", "n"), [(12, 4), (13, 4), (5, 4), (4, 4), (1, 1), (100, 7)])
def test_every_state_comes_once_an_epoch_and_never_twice_in_a_batch(size, n):
    states = [memory_state(i, photo=2) for i in range(size)]
    batches_per_epoch = -(-size // n)
    orders = []
    for epoch in range(3):
        steps = range(epoch * batches_per_epoch, (epoch + 1) * batches_per_epoch)
        batches = [draw_states(0, step, n, states) for step in steps]
        assert all(len({s.state_id for s in batch}) == n for batch in batches)
        drawn = [state.state_id for batch in batches for state in batch]
        assert sorted(drawn[:size]) == sorted(state.state_id for state in states)
        orders.append(tuple(drawn))
    assert size < 4 or len(set(orders)) == 3


def test_batch_larger_than_the_data_set_repeats_states_evenly():
    states = [memory_state(i, photo=2) for i in range(3)]
    assert sorted(Counter(s.state_id for s in draw_states(0, 9, 7, states)).values()) == [2, 2, 3]
    with pytest.raises(DatasetError):
        draw_states(0, 0, 2, [])


def test_seeds_draw_different_batches():
    states = [memory_state(i, photo=2) for i in range(50)]
    assert draw_states(0, 0, 8, states) != draw_states(1, 0, 8, states)

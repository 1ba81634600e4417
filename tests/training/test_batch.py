import dataclasses

import pytest
import torch

from harald import config
from harald.config import Config
from harald.data.index import states_for
from harald.data.named import named
from harald.errors import DatasetError
from harald.records import State
from harald.training.batch import DUMMY_PROMPT, Batch, Batches, keep_groups, slots_of
from harald.training.loop import loader
from tests.models import base, encoder
from tests.states import write_dataset

SHAPE, MU = (16, 64), 0.5


def with_train(c: Config, **changes) -> Config:
    return dataclasses.replace(c, train=dataclasses.replace(c.train, **changes))


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    runtime = write_dataset(tmp_path_factory.mktemp("root"), states=6)
    return states_for(runtime, config.tiny())


def make(c: Config, states: list[State]) -> Batches:
    return Batches(c, states, SHAPE, MU, None, encoder().chats, base().tokenize)


def contents(batch: Batch) -> list:
    """Everything in a batch, as bytes where it is a tensor."""

    def flat(value):
        if isinstance(value, torch.Tensor):
            return value.numpy().tobytes()
        if isinstance(value, list | tuple):
            return [flat(one) for one in value]
        if dataclasses.is_dataclass(value):
            return [flat(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return value

    return flat(batch)


def same(a: Batch, b: Batch) -> bool:
    return contents(a) == contents(b)


def test_batch_is_a_pure_function_of_the_step(states):
    one, other = (make(config.tiny(), states) for _ in range(2))
    _ = one[0], one[1]  # what was drawn before does not matter
    assert same(one[7], other[7])
    assert not same(one[7], one[8])


def test_number_of_workers_changes_nothing(states):
    c = with_train(config.tiny(), steps=4)
    batches = make(c, states)
    alone = list(loader(batches, 1, c.train))
    helped = list(loader(batches, 1, dataclasses.replace(c.train, workers=2)))
    assert [b.step for b in helped] == [1, 2, 3]
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_noise_and_time_of_a_view_do_not_depend_on_its_neighbours(states):
    """Batch make-up: with more targets a state, the targets that both batches share keep their draws."""
    few = make(with_train(config.tiny(), targets_per_state=1), states)
    many = make(with_train(config.tiny(), targets_per_state=2), states)
    shared = 0
    for step in range(6):
        noise = {one.numpy().tobytes() for one in many[step].targets.noise}
        shared += sum(one.numpy().tobytes() in noise for one in few[step].targets.noise)
    assert shared >= 6


def test_all_targets_of_a_batch_are_of_one_domain_and_never_among_the_references(states):
    batches = make(config.tiny(), states)
    domains = set()
    for step in range(12):
        batch = batches[step]
        assert {v.domain for pair in batch.pairs for v in pair.targets} == {batch.domain}
        assert not any(set(pair.references) & set(pair.targets) for pair in batch.pairs)
        domains.add(batch.domain)
    assert domains == {"photo", "comic"}


def prompts(batches: Batches, step: int) -> list[str]:
    return [target.prompt for target in batches.targets(step, batches[step].pairs)]


def test_prompts_are_silent_about_the_state_but_for_the_share_that_is_asked_for(states):
    silent = make(with_train(config.tiny(), state_free_share=1.0, drop_text=0.0), states)
    full = make(with_train(config.tiny(), state_free_share=0.0, drop_text=0.0), states)
    dummy = make(with_train(config.tiny(), drop_text=1.0), states)
    for step in range(5):
        assert all("hair" not in prompt and "<person>" in prompt for prompt in prompts(silent, step))
        assert all("hair" in prompt and "<person>" in prompt for prompt in prompts(full, step))
        assert all(prompt == DUMMY_PROMPT for prompt in prompts(dummy, step))


def test_groups_are_dropped_and_never_all_of_them():
    c = with_train(config.tiny(), drop_group=0.5)
    names = [name for name, _ in c.encoder.groups]
    seen = {keep_groups(c, step, "x") for step in range(200)}
    assert len(seen) == 2 ** len(names) - 1
    assert slots_of(["hair", "outfit"], c.encoder) == [4, 5, 6, 7, 12, 13, 14, 15]
    assert keep_groups(with_train(c, drop_references=1.0), 0, "x") == ()


def test_teacher_says_what_the_kept_groups_carry_and_the_picture_then_teaches_nothing(states):
    """Without the hair's tokens the person is drawn as a description without hair: so each group carries its own."""
    c = with_train(config.tiny(), drop_group=0.5, teacher_weight=1.0, state_free_share=1.0, drop_text=0.0)
    batches, kinds = make(c, states), set()
    for step in range(12):
        for target in batches.targets(step, batches[step].pairs):
            groups = {name for name, start in (("face", 0), ("hair", 4)) if start in target.slots}
            assert ("hair" in target.described) == ("hair" in groups)
            assert ("woman" in target.described) == ("face" in groups)
            assert target.shown == (len(target.slots) == 16)
            kinds.add(frozenset(groups))
    assert len(kinds) == 4


def test_contrast_references_are_disjoint_from_references_and_targets(states):
    batches = make(with_train(config.tiny(), contrast_weight=0.5, max_references=1, targets_per_state=1), states)
    batch = batches[0]
    (members, seen), *_ = batch.references
    (others, unseen), *_ = batch.contrast
    assert len(batch.contrast) == len(batch.references) and members == others
    assert not any(torch.equal(a, b) for a in seen.patches[0] for b in unseen.patches[0])
    plain = make(config.tiny(), states)
    assert plain[0].contrast == []


def twins(states):
    """Two looks of one person, of another one, and the rest unknown."""
    names = ["anna", "anna", "ben", "ben"] + [""] * (len(states) - 4)
    return [dataclasses.replace(state, identity=name) for state, name in zip(states, names, strict=True)]


def test_targets_can_show_the_same_person_in_another_look(states):
    named = twins(states)
    batches = make(with_train(config.tiny(), targets="other_state", states_per_batch=4), named)
    seen = set()
    for step in range(6):
        for pair in batches[step].pairs:
            seen.add((pair.state.state_id, pair.drawn.state_id))
            assert pair.state.identity == pair.drawn.identity and pair.state is not pair.drawn
            assert set(pair.references) <= set(pair.state.views) and set(pair.targets) <= set(pair.drawn.views)
    ids = [state.state_id for state in named]
    assert seen == {(ids[0], ids[1]), (ids[1], ids[0]), (ids[2], ids[3]), (ids[3], ids[2])}


def test_other_looks_need_to_be_known(states):
    with pytest.raises(DatasetError, match=r"people\.csv"):
        make(with_train(config.tiny(), targets="other_state"), states)[0]


def test_wishes_win_over_the_pictures_in_the_words_of_the_teacher(states):
    c = with_train(config.tiny(), override_share=1.0, teacher_weight=1.0, drop_group=0.5, states_per_batch=4)
    batches, met = make(c, states), set()
    for step in range(4):
        for slot, pair in enumerate(batches[step].pairs):
            own = pair.state.person
            for target in batches.targets(step, [pair]):
                wish = target.prompt.partition("<person> ")[2].partition(",")[0]
                if not wish.startswith("with "):
                    continue  # nobody who was drawn wears anything else
                met.add(wish)
                assert wish.removeprefix("with ") in target.described and wish.removeprefix("with ") not in own
                assert own not in target.described and own.partition(" with ")[0] in target.described
                left = [name for name in c.encoder.names if name not in named(f" {wish}")]  # `hair` makes room for hair
                assert not target.shown and target.slots == slots_of(left, c.encoder)
            assert slot < 4
    assert len(met) > 1


def test_twins_come_in_one_batch_when_asked_for(states):
    named = twins(states)
    for seed in range(5):
        c = dataclasses.replace(with_train(config.tiny(), twins_together=True, states_per_batch=2), seed=seed)
        batches = make(c, named)
        drawn = [[pair.state.identity for pair in batches[step].pairs] for step in range(len(named) // 2)]
        assert [sorted(people) for people in drawn].count(["anna", "anna"]) <= 1
        places = [person for people in drawn for person in people]
        assert abs(places.index("anna") - (len(places) - 1 - places[::-1].index("anna"))) == 1


def test_whole_share_leaves_so_many_targets_with_all_their_groups():
    names = config.tiny().encoder.names
    for share, least, most in ((1.0, 1.0, 1.0), (0.6, 0.5, 0.7), (0.0, 0.0, 0.0)):
        c = with_train(config.tiny(), drop_group=0.9, whole_share=share)
        kept = [keep_groups(c, step, "0/photo_view_01") for step in range(400)]
        # A target that would lose all its groups keeps them, too: they are told apart by the others.
        whole = sum(groups == names for groups in kept) / len(kept)
        emptied = (1 - share) * 0.9 ** len(names)
        assert least - 0.06 <= whole - emptied <= most + 0.06


def test_one_group_is_left_out_that_the_description_speaks_of():
    names, said = config.tiny().encoder.names, "a man with red hair, wearing a coat"
    c = with_train(config.tiny(), drop_one=1.0)
    gone = [set(names) - set(keep_groups(c, step, "x", said)) for step in range(100)]
    assert {len(groups) for groups in gone} == {1} and set.union(*gone) == {"face", "hair", "outfit"}
    silent = [set(names) - set(keep_groups(c, step, "x")) for step in range(100)]
    assert set.union(*silent) == set(names), "where nothing is said, any one"
    half = with_train(config.tiny(), drop_one=1.0, whole_share=0.5)
    whole = sum(keep_groups(half, step, "x", said) == names for step in range(400))
    assert 160 < whole < 240

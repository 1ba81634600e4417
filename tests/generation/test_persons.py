import dataclasses
import hashlib

import pytest
import torch

from harald.errors import ConfigError, PersonFileError
from harald.generation.persons import for_prompt, mixed, without_groups
from harald.injection.person_file import to_bytes
from harald.injection.prompt import parse
from harald.records import PersonTokens


def person(seed: int, **changes) -> PersonTokens:
    tokens = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    whole = PersonTokens(tokens, (("face", 2), ("hair", 1), ("worn", 2)), "output", "base", 1, "run/step")
    return dataclasses.replace(whole, **changes)


def test_dropped_groups_take_their_slots_with_them():
    kept = without_groups(person(0), {"hair"})
    assert kept.groups == (("face", 2), ("worn", 2))
    assert torch.equal(kept.tokens, person(0).tokens[[0, 1, 3, 4]])


def test_unknown_group_and_an_empty_person_are_refused():
    with pytest.raises(ConfigError, match=r"no group 'hare'\n  fix: did you mean 'hair'"):
        without_groups(person(0), {"hare"})
    with pytest.raises(ConfigError, match="no group of the person is left"):
        without_groups(person(0), {"face", "hair", "worn"})


def test_what_the_words_ask_for_makes_room_in_the_tokens():
    persons = {"anna": person(0), "ben": person(1)}
    prompt = parse(
        "photo of <person:anna> with a bun and glasses, and <person:ben>, in a park with a man with long hair"
    )
    made = for_prompt(prompt, persons)
    assert made["anna"].groups == (("face", 2), ("worn", 2)), "`worn` carries more than glasses"
    assert torch.equal(made["anna"].tokens, person(0).tokens[[0, 1, 3, 4]])
    assert made["ben"].groups == persons["ben"].groups and torch.equal(made["ben"].tokens, persons["ben"].tokens)
    hair = without_groups(person(0), {"face", "worn"})
    assert for_prompt(parse("<person> with a bun"), {"": hair})[""].groups == hair.groups, "the last group stays"
    twice = for_prompt(parse("<person> in a park and <person> with long hair"), {"": person(2)})
    assert twice[""].groups == (("face", 2), ("worn", 2)), "a person has one set of tokens in a prompt"
    assert set(for_prompt(parse("<person:ben> laughing"), persons)) == {"ben"}


def test_mix_is_the_mean_direction_with_the_mean_length():
    a, b = person(1), person(2)
    mix = mixed([(a, 3.0), (b, 1.0)])
    mean, lengths = 0.75 * a.tokens + 0.25 * b.tokens, 0.75 * a.tokens.norm(dim=1) + 0.25 * b.tokens.norm(dim=1)
    torch.testing.assert_close(mix.tokens.norm(dim=1), lengths)
    torch.testing.assert_close(torch.cosine_similarity(mix.tokens, mean), torch.ones(5))
    assert mix.references == 2
    files = [hashlib.sha256(to_bytes(one)).hexdigest() for one in (a, b)]
    assert mix.notes == {"mixed": f"0.75 of {files[0][:12]}, 0.25 of {files[1][:12]}"}


def test_vectors_of_one_slot_are_mixed_each_by_itself():
    a, b = (person(seed, point="both") for seed in (1, 2))
    halves = [
        mixed([(replace_tokens(a, half), 3.0), (replace_tokens(b, half), 1.0)]).tokens
        for half in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(mixed([(a, 3.0), (b, 1.0)]).tokens, torch.cat(halves, -1))


def replace_tokens(whole: PersonTokens, half: slice) -> PersonTokens:
    return dataclasses.replace(whole, point="input", tokens=whole.tokens[:, half])


def test_weight_0_leaves_a_person_out_and_only_proportions_matter():
    torch.testing.assert_close(mixed([(person(1), 1.0), (person(2), 0.0)]).tokens, person(1).tokens)
    assert torch.equal(
        mixed([(person(1), 2.0), (person(2), 2.0)]).tokens, mixed([(person(1), 0.5), (person(2), 0.5)]).tokens
    )
    assert mixed([(person(1), 0.3)]) is not None and torch.equal(mixed([(person(1), 0.3)]).tokens, person(1).tokens)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0)])
def test_weights_without_a_mean_are_refused(weights):
    with pytest.raises(ConfigError, match="the weights of a mix"):
        mixed([(person(1), weights[0]), (person(2), weights[1])])


@pytest.mark.parametrize("change", [{"encoder": "other"}, {"base": "other"}, {"point": "input"}])
def test_persons_of_different_encoders_are_not_mixed(change):
    with pytest.raises(PersonFileError, match="different encoders"):
        mixed([(person(1), 1.0), (person(2, **change), 1.0)])

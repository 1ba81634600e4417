import pytest
import torch

from harald.config import VECTORS
from harald.errors import PromptError
from harald.injection.layout import Room, lay_out, piece, word_ends
from harald.injection.points import calibration, condition, conditioned, insert, plain
from harald.injection.prompt import ANY, parse
from tests.models import base

PROMPT = parse("a photo of <person>, laughing, in a park")


@pytest.mark.parametrize("point", ["output", "input", "both"])
def test_no_person_is_the_plain_prompt_bit_for_bit(point):
    states = condition(base(), PROMPT, {}, point, "person")
    assert torch.equal(states, plain(base(), "a photo of person, laughing, in a park"))


def test_own_word_embeddings_at_the_input_point_give_the_prompts_own_states():
    words = "a young woman with red hair"
    rows = base().word_embeddings(torch.tensor(base().tokenize(" " + words)))
    assert torch.equal(condition(base(), PROMPT, {ANY: rows}, "input", ""), plain(base(), PROMPT.with_word(words)))


def test_tokens_stand_right_after_the_class_word_at_the_output_point():
    tokens = torch.full((3, base().width), 7.0)
    states = condition(base(), PROMPT, {ANY: tokens}, "output", "person")
    before = plain(base(), PROMPT.with_word("person"))
    end = len(base().tokenize("a photo of person"))
    assert word_ends(base().tokenize, PROMPT, "person") == [end]
    assert torch.equal(states[end : end + 3], tokens)
    assert torch.equal(torch.cat([states[:end], states[end + 3 :]]), before)


def test_first_half_is_read_by_the_words_behind_and_second_half_stands_there_at_both_points():
    width = base().width
    first, second = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(1))
    states = condition(base(), PROMPT, {ANY: torch.cat([first, second], -1)}, "both", "person")
    at_input = condition(base(), PROMPT, {ANY: first}, "input", "person")
    place = len(base().tokenize("a photo of"))
    assert torch.equal(states[place : place + 3], second)
    assert torch.equal(states[:place], at_input[:place]) and torch.equal(states[place + 3 :], at_input[place + 3 :])
    assert not torch.equal(states[place:], condition(base(), PROMPT, {}, "both", "person")[place:])


def test_own_embeddings_and_states_at_both_points_give_the_prompts_own_states():
    words = "a young woman with red hair"
    rows, whole = (
        base().word_embeddings(torch.tensor(base().tokenize(" " + words))),
        plain(base(), PROMPT.with_word(words)),
    )
    place = len(base().tokenize("a photo of"))
    own = torch.cat([rows, whole[place : place + len(rows)]], -1)
    assert torch.equal(condition(base(), PROMPT, {ANY: own}, "both", ""), whole)


def test_prompts_of_a_batch_are_as_alone_at_both_points():
    """Padding, room for more tokens and a piece of the batch change nothing."""
    tokens = torch.randn(4, 2 * base().width, generator=torch.Generator().manual_seed(1))
    prompts = [(PROMPT, {ANY: range(4)}), (parse("<person>"), {ANY: range(1, 3)}), (PROMPT, {})]
    layout = lay_out(base().tokenize, prompts, "both", "person", Room(8, 4))
    together = conditioned(base(), layout, tokens)
    later = conditioned(base(), piece(layout, 1, 3), tokens)
    torch.testing.assert_close(later, together[1:], rtol=0, atol=1e-6)
    for line, seen, (prompt, rows) in zip(together, layout.mask, prompts, strict=True):
        alone = condition(base(), prompt, {ANY: tokens[list(rows[ANY])]} if rows else {}, "both", "person")
        torch.testing.assert_close(line[seen], alone, rtol=0, atol=1e-6)


def test_several_persons_keep_their_own_places():
    prompt = parse("photo of <person:a> and <person:b> on a beach")
    a, b = torch.full((2, base().width), 1.0), torch.full((4, base().width), 2.0)
    states = condition(base(), prompt, {"a": a, "b": b}, "output", "person")
    rows = (
        [row for row in range(len(states)) if states[row].eq(1).all()],
        [row for row in range(len(states)) if states[row].eq(2).all()],
    )
    first, second = word_ends(base().tokenize, prompt, "person")
    assert rows == ([first, first + 1], [second + 2, second + 3, second + 4, second + 5])


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_each_of_two_persons_stands_where_its_own_name_stands_at_the_input_point(order):
    said = {"a": "a young woman with red hair", "b": "an old man"}
    rows = {name: base().word_embeddings(torch.tensor(base().tokenize(" " + words))) for name, words in said.items()}
    prompt = parse("photo of <person:{}> and <person:{}> on a beach".format(*order))
    expected = plain(base(), "photo of {} and {} on a beach".format(*(said[name] for name in order)))
    assert torch.equal(condition(base(), prompt, rows, "input", ""), expected)


def test_slot_order_changes_the_velocity():
    """Text RoPE depends on the order: slot order is part of the person file's format."""
    tokens = torch.randn(4, base().width, generator=torch.Generator().manual_seed(1))
    latents, t = torch.ones(1, 16, 64), torch.tensor([0.5])
    one, other = (
        base().velocity(latents, t, condition(base(), PROMPT, {ANY: k}, "output", "person")[None], 64)
        for k in (tokens, tokens.flip(0))
    )
    assert not torch.equal(one, other)


def test_magnitude_is_erased_at_the_output_point():
    """txt_norm divides it out: a strength slider cannot multiply tokens."""
    tokens = torch.randn(4, base().width, generator=torch.Generator().manual_seed(1))
    latents, t = torch.ones(1, 16, 64), torch.tensor([0.5])
    one, seven = (
        base().velocity(latents, t, condition(base(), PROMPT, {ANY: k}, "output", "person")[None], 64)
        for k in (tokens, 7 * tokens)
    )
    assert torch.allclose(one, seven, atol=1e-5)


@pytest.mark.parametrize("point", ["output", "input", "both"])
def test_gradients_reach_the_tokens(point):
    tokens = torch.randn(4, VECTORS[point] * base().width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    states = condition(base(), PROMPT, {ANY: tokens}, point, "person")
    base().velocity(torch.ones(1, 16, 64), torch.tensor([0.5]), states[None], 64).square().mean().backward()
    assert tokens.grad is not None and tokens.grad.abs().unflatten(1, (VECTORS[point], -1)).sum(2).min() > 0


def test_insert_puts_the_same_rows_back():
    states = torch.arange(20.0).view(5, 4)
    assert torch.equal(insert(torch.cat([states[:1], states[3:]]), states[1:3], 1), states)


def test_placeholder_glued_to_a_word_is_refused():
    with pytest.raises(PromptError, match="runs into the next word"):
        word_ends(base().tokenize, parse("a <person>graph of"), "photo")  # "photograph" is one token


def test_calibration_is_the_scale_of_what_the_point_expects():
    text = "a photo of a woman in a park"
    assert torch.allclose(calibration(base(), [text], "output"), plain(base(), text).square().mean(0).sqrt())
    both = torch.cat([calibration(base(), [text], "input"), calibration(base(), [text], "output")])
    assert torch.equal(calibration(base(), [text], "both"), both)
    assert calibration(base(), [text], "input").mean() < 0.1 < calibration(base(), [text], "output").mean()

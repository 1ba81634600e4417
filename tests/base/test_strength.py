"""Strength: guidance between the velocity without and with the person."""

import pytest
import torch
from PIL import Image
from torch import Tensor

from harald import config
from harald.base.strength import strengthened
from harald.generation.draw import draw
from harald.injection.points import condition, plain
from harald.injection.prompt import ANY, parse
from tests.models import base

PROMPT = parse("a photo of <person>, laughing, in a park")
TOKENS = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))


def picture(strength: float, persons: dict[str, Tensor] | None = None, calls: list[int] | None = None) -> Image.Image:
    if calls is None:
        return draw(base(), PROMPT, persons or {ANY: TOKENS}, [3], config.tiny(), "photo", strength=strength)[0]
    transformer, forward = base().transformer, base().transformer.forward

    def counted(*args, **options):
        calls.append(1)
        return forward(*args, **options)

    transformer.forward = counted
    try:
        return picture(strength, persons)
    finally:
        del transformer.forward


@pytest.fixture(scope="module")
def states() -> tuple[Tensor, Tensor]:
    """Of the prompt with and without the person."""
    return condition(base(), PROMPT, {ANY: TOKENS}, "output", "person"), plain(base(), PROMPT.with_word("person"))


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_velocity_lies_on_the_line_through_both(states, strength):
    (person, text), latents, t = states, torch.ones(1, 16, 64), torch.tensor([0.5])
    v_person, v_text = (base().velocity(latents, t, s[None], 64) for s in (person, text))
    with strengthened(base().transformer, person, text, strength):
        guided, other = (base().velocity(latents, t, s[None], 64) for s in (person, text))
    assert torch.equal(guided, v_text + strength * (v_person - v_text))
    assert torch.equal(other, v_text)
    assert torch.equal(base().velocity(latents, t, person[None], 64), v_person)


def test_strength_1_is_the_plain_path_at_no_extra_cost(states):
    settings, calls, more = config.tiny().generate, [], []
    plain_path = base().draw(
        states[0], plain(base(), " "), [3], settings.size, settings.steps, settings.guidance
    )[0]  # fmt: skip
    assert picture(1.0, calls=calls).tobytes() == plain_path.tobytes()
    assert len(calls) == 2 * settings.steps
    picture(2.0, calls=more)
    assert len(more) == 3 * settings.steps


def test_strength_0_is_the_picture_without_the_person_at_no_extra_cost():
    calls: list[int] = []
    without = draw(base(), PROMPT, {}, [3], config.tiny(), "photo")[0]
    assert picture(0.0, calls=calls).tobytes() == without.tobytes()
    assert len(calls) == 2 * config.tiny().generate.steps


def test_every_strength_draws_another_picture_and_the_same_one_twice():
    drawn = [picture(s).tobytes() for s in (0.0, 0.5, 1.0, 2.0)]
    assert len(set(drawn)) == 4
    assert picture(2.0).tobytes() == drawn[-1]


def test_what_a_step_raises_ends_the_drawing_and_leaves_the_model_as_it_was():
    before, steps = picture(1.0).tobytes(), []

    class Left(Exception):
        pass

    def leave() -> None:
        steps.append(1)
        if len(steps) == 2:
            raise Left

    with pytest.raises(Left):
        draw(base(), PROMPT, {ANY: TOKENS}, [3], config.tiny(), "photo", strength=2.0, on_step=leave)
    assert len(steps) == 2
    assert picture(1.0).tobytes() == before

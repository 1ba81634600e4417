"""Textual Inversion: persons side by side are what they are alone."""

import dataclasses

import pytest
import torch

from harald import config
from harald.config import VECTORS
from harald.data.index import states_for
from harald.training.inversion import invert, probe_loss, probe_targets, refined
from tests.models import base
from tests.states import write_dataset


@pytest.mark.parametrize("point", ["output", "input", "both"])
def test_persons_side_by_side_are_as_alone_and_differ(tmp_path, point):
    c = config.tiny()
    c = dataclasses.replace(c, poc=dataclasses.replace(c.poc, steps=4))
    views = [list(state.views) for state in states_for(write_dataset(tmp_path), c)[:3]]
    together, curve = invert(base(), [v[:-1] for v in views], [v[-1:] for v in views], point, c)
    assert together.shape == (3, c.encoder.tokens, VECTORS[point] * base().width)
    assert [row["step"] for row in curve] == [0, 1, 2, 3, 4]
    held_out = []
    for tokens, own in zip(together, views, strict=True):
        (alone,), own_curve = invert(base(), [own[:-1]], [own[-1:]], point, c)
        torch.testing.assert_close(tokens, alone, rtol=0, atol=2e-2 * alone.std().item())
        held_out.append(own_curve[-1]["held_out"])
    assert curve[-1]["held_out"] == pytest.approx(sum(held_out) / 3, rel=1e-4) and len(set(held_out)) == 3
    for vector in together.chunk(VECTORS[point], -1):
        moved = (vector - vector.mean(0)).square().mean().sqrt()
        assert moved > 0.05 * c.poc.learning_rate * vector.square().mean().sqrt()


def test_curve_without_held_out_views_has_no_loss_of_them(tmp_path):
    c = config.tiny()
    c = dataclasses.replace(c, poc=dataclasses.replace(c.poc, steps=2))
    views = states_for(write_dataset(tmp_path), c)[0].views
    assert all("held_out" not in row for row in invert(base(), [views], [], "output", c)[1])
    assert all("held_out" in row for row in invert(base(), [views[:-1]], [views[-1:]], "output", c)[1])


@pytest.mark.parametrize("point", ["input", "both"])
def test_refined_tokens_fit_their_pictures_better_and_stay_near(tmp_path, point):
    c = config.tiny()
    refine = dataclasses.replace(c.refine, steps=6, batch=2)
    c = dataclasses.replace(c, refine=refine, injection=dataclasses.replace(c.injection, point=point))
    views = [list(state.views) for state in states_for(write_dataset(tmp_path), c)[:2]]
    draws = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 30.0])[: VECTORS[point]].repeat_interleave(base().width)
    begin = torch.randn(2, c.encoder.tokens, VECTORS[point] * base().width, generator=draws) * scale
    tokens, again = (refined(base(), begin, views, point, c) for _ in range(2))
    assert torch.equal(tokens, again) and not tokens.requires_grad
    for vector, before in zip(tokens.chunk(VECTORS[point], -1), begin.chunk(VECTORS[point], -1), strict=True):
        moved = (vector - before).abs().max() / before.square().mean().sqrt()
        assert 0.5 * refine.learning_rate < moved < 1.1 * refine.steps * refine.learning_rate
    probe = [target for owner, own in enumerate(views) for target in probe_targets(base(), own, c, owner)]
    assert probe_loss(base(), tokens, probe, c) < probe_loss(base(), begin, probe, c)
    alone = refined(base(), begin[1:], views[1:], point, c)
    torch.testing.assert_close(alone[0], tokens[1], rtol=0, atol=2e-2 * begin[1].std().item())

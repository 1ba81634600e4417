"""Textual Inversion: persons side by side are what they are alone."""

import dataclasses

import pytest
import torch

from harald import config
from harald.config import VECTORS
from harald.data.index import states_for
from harald.training.inversion import invert
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

"""The baseline of evaluate that optimises tokens for each state."""

import dataclasses

import torch

from harald import config
from harald.evaluation.experiment import Experiment
from harald.evaluation.panel import cells
from harald.jobs import evaluate
from harald.proving_ground.panel import validation_panel
from harald.runtime import Session
from harald.training.inversion import initial_tokens, invert
from tests.models import base


def test_states_in_groups_get_the_tokens_that_each_gets_alone(tmp_path):
    tiny = config.tiny()
    settings = dataclasses.replace(
        tiny.evaluate, states=4, views=6, references=(1,), main_references=1, inversion_states=3, inversion_steps=2,
        batch=2 * tiny.poc.batch,
    )  # fmt: skip
    c = dataclasses.replace(tiny, evaluate=settings)
    panel = validation_panel(c, tmp_path, states=4)
    experiment = Experiment(panel, cells(panel, settings, 0), panel, c)
    told = []
    session = Session()
    session.progress = lambda done, total, unit: told.append((done, total))
    made, seconds = evaluate.inversions(base(), experiment, session, tmp_path)
    assert list(made) == [0, 1, 2] and seconds > 0
    assert told[1:] == [(1, 4), (2, 4), (3, 4), (4, 4)], "two states at a time"
    alone = evaluate.optimising(c, 2)
    for number, tokens in made.items():
        hidden = {cell.target for cell in experiment.cells if cell.state == number}
        views = [view for place, view in enumerate(panel.states[number].views) if place not in hidden]
        (own,), _ = invert(base(), [views], [], experiment.point, alone)
        torch.testing.assert_close(tokens, own.cpu(), rtol=0, atol=2e-2 * own.std().item())
    again, same = evaluate.inversions(None, experiment, session, tmp_path)  # kept: no model is asked
    assert same == seconds and all(torch.equal(again[number], made[number]) for number in made)
    evaluate.runs.write_json(tmp_path / "inversion_cost.json", {"another machine": 1e-9})
    tokens, here = evaluate.inversions(base(), experiment, session, tmp_path)  # a run goes on elsewhere
    assert here > 1e-6 and all(torch.equal(tokens[number], made[number]) for number in made), (
        "timed here, not made again"
    )


def test_refined_tokens_are_kept_and_taken_up_again(tmp_path):
    tiny = config.tiny()
    c = dataclasses.replace(tiny, refine=dataclasses.replace(tiny.refine, steps=1))
    panel = validation_panel(c, tmp_path, states=2)
    experiment = Experiment(panel, cells(panel, c.evaluate, 0), panel, c)
    seen = {f"ours/{n}": panel.states[n].views[:2] for n in range(2)}
    start = initial_tokens(base(), c)[0]
    experiment.table |= {name: start.clone() for name in seen}
    made = evaluate.refinements(base(), experiment, seen, Session(), tmp_path)
    assert set(made) == set(seen) and all(not torch.equal(tokens, start) for tokens in made.values())
    again = evaluate.refinements(None, experiment, seen, Session(), tmp_path)  # no model is asked
    assert all(torch.equal(again[name], made[name]) for name in made)

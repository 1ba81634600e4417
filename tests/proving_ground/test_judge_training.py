import copy
import dataclasses
import math

import pytest
import torch

from harald.evaluation.judge import Judge
from harald.proving_ground.pretraining import judge as stage
from harald.proving_ground.pretraining.segment import Plan, generator, train

ATTRIBUTES = {"hat": ("none", "cap", "beanie"), "ring": ("no", "yes"), "scene": ("day", "night")}
SIDE, PLAN = 32, Plan(steps=200, learning_rate=4e-3, warmup_steps=5, decay_share=0.4, ema=0.9)
CPU = torch.device("cpu")


def squares(states: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Persons as squares: hat and scene as brightness, the ring 3 px wide and hidden in a third of the pictures.

    Twins share the colour of their face. images [N, 4, S, S, 3], labels [N, 4, 3], identity [N].
    """
    draw = torch.Generator().manual_seed(first)
    images = torch.zeros(states, 4, SIDE, SIDE, 3, dtype=torch.uint8)
    hat, ring = (torch.randint(n, (states, 1), generator=draw).expand(-1, 4) for n in (3, 2))
    scene = torch.randint(2, (states, 4), generator=draw)
    hidden = torch.rand(states, 4, generator=draw) < 0.33
    face = torch.randint(256, (states // 2, 3), generator=draw, dtype=torch.uint8).repeat_interleave(2, 0)
    images[:, :, 20:, :8] = (scene * 200)[..., None, None, None].to(torch.uint8)
    images[:, :, 2:10, 6:26] = (hat * 120)[..., None, None, None].to(torch.uint8)
    images[:, :, 12:24, 10:22] = face[:, None, None, None]
    images[:, :, 26:29, 26:29] = torch.where(hidden, 80, ring * 255)[..., None, None, None].to(torch.uint8)
    labels = torch.stack([hat, torch.where(hidden, -1, ring), scene], 2).to(torch.int8)
    return images, labels, torch.arange(states) // 2 + first


def trained(plan: Plan = PLAN) -> tuple[Judge, list[dict]]:
    images, labels, _ = squares(256)
    judge, rows = stage.new(ATTRIBUTES, SIDE, seed=0, width=8), []
    priors = stage.log_priors(labels, [3, 2, 2])
    train(
        [judge],
        lambda step: stage.losses(judge, images, labels, priors, 64, generator(CPU, 0, step)),
        plan,
        rows.append,
    )
    return stage.calibrate(judge, images, seed=0, batch=64, batches=8), rows


@pytest.fixture(scope="module")
def judged() -> tuple[Judge, list[dict]]:
    return trained()


def test_trained_judge_reads_persons_it_never_saw(judged):
    table = stage.held_out(judged[0], *squares(40, first=1000))
    assert all(table[name].low > 0.9 for name in ("hat", "ring", "scene")), table
    assert table["visible ring"].low > 0.9 and math.isnan(table["visible scene"].value)  # the scene is never hidden
    assert "visible ring" in stage.logged(table) and "visible scene" not in stage.logged(table)
    assert table["identity"].low > 0.75
    assert stage.held_out(stage.new(ATTRIBUTES, SIDE, 0, 8), *squares(40, first=1000))["hat"].value < 0.6


def test_calibration_fits_the_statistics_to_the_weights(judged):
    """Averaged weights are other weights than those that the running statistics were taken from."""
    judge = copy.deepcopy(judged[0])
    for module in judge.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.full_like(module.running_mean, 3), module.running_var * 9
    assert stage.held_out(judge, *squares(20, first=1000))["hat"].value < 0.8
    stage.calibrate(judge, squares(256)[0], seed=0, batch=64, batches=8)
    assert stage.held_out(judge, *squares(20, first=1000))["hat"].value > 0.95


def test_batch_of_one_person_has_a_finite_gradient():
    faces = torch.nn.functional.normalize(torch.randn(4, 3)).requires_grad_()
    stage.twin_contrast(faces, torch.tensor([0, 0, 1, 1])).backward()
    assert faces.grad is not None and faces.grad.isfinite().all()


def test_training_is_a_function_of_the_seed():
    short = dataclasses.replace(PLAN, steps=3)
    (one, rows), (two, again) = trained(short), trained(short)
    assert rows == again
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_hidden_parts_give_no_gradient():
    scores = [torch.randn(4, 3, requires_grad=True), torch.randn(4, 2, requires_grad=True)]
    truth = torch.tensor([[0, -1], [2, -1], [-1, -1], [1, -1]])
    stage.sum_of_heads(scores, truth, [torch.zeros(3), torch.zeros(2)]).backward()
    assert scores[0].grad is not None and scores[1].grad is not None
    assert (scores[0].grad[2] == 0).all() and (scores[0].grad[[0, 1, 3]] != 0).all()
    assert (scores[1].grad == 0).all() and scores[1].grad.isfinite().all()


def test_prior_counts_visible_labels_and_a_rare_class_costs_more_while_learning():
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, -1, -1]).reshape(5, 2, 1)
    (prior,) = stage.log_priors(labels, [2])
    assert prior.exp().tolist() == pytest.approx([0.8, 0.2])
    common, rare = (stage.sum_of_heads([torch.zeros(1, 2)], torch.tensor([[c]]), [prior]).item() for c in (0, 1))
    assert rare > common


def test_batch_shows_both_states_of_each_person_in_different_views():
    state, view = stage.twins(40, 8, 64, generator(CPU, 0, "test"))
    rows = state.reshape(-1, 4)
    assert (
        (rows[:, 0] % 2 == 0).all() and torch.equal(rows[:, 0] + 1, rows[:, 2]) and torch.equal(rows[:, 2], rows[:, 3])
    )
    assert (view[0::2] != view[1::2]).all() and view.max() == 7 and state.max() < 40


def test_only_the_twin_attracts_and_only_other_persons_repel():
    base = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]]))
    state = torch.tensor([0, 0, 1, 2])  # two pictures of a state, its twin, a stranger
    moved = base.clone().requires_grad_()
    stage.twin_contrast(moved, state).backward()
    assert moved.grad is not None and moved.grad[0] @ (base[2] - base[3]) < 0  # the loss falls towards the twin
    near = stage.twin_contrast(base, state)
    far = stage.twin_contrast(base[[0, 1, 3, 2]], state)
    assert near < far


def test_softened_pictures_repeat_with_their_key_and_are_never_mirrored():
    ramp = torch.linspace(-0.8, 0.8, SIDE).expand(64, 3, SIDE, SIDE)
    soft = stage.soften(ramp, generator(CPU, 0, "a"))
    assert torch.equal(soft, stage.soften(ramp, generator(CPU, 0, "a")))
    assert (soft[..., -8:].mean((1, 2, 3)) > soft[..., :8].mean((1, 2, 3))).all()
    assert soft.abs().max() <= 1 and not torch.equal(soft[0], soft[1])

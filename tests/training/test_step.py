import dataclasses

import pytest
import torch

from harald import config
from harald.data.index import states_for
from harald.errors import TrainingError
from harald.training.batch import Batches
from harald.training.loop import learning_rate, make_optimizer, train_step
from harald.training.step import flow_losses, training_loss
from tests.models import base, encoder
from tests.states import write_dataset


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    c = config.tiny()
    states = states_for(write_dataset(tmp_path_factory.mktemp("root"), states=6), c)
    shape, mu = base().latent_shape(c.data.image_size)
    return Batches(c, states, shape, mu, None)


def test_loss_of_a_target_does_not_depend_on_the_other_targets(batches):
    """Targets of unequal length are not padded: each has the loss it has alone."""
    c, batch, tokens = batches.config, batches[0], encoder()(batches[0].references).detach()
    batch.targets[0] = dataclasses.replace(batch.targets[0], prompt="photo of <person>")
    together = flow_losses(base(), tokens, batch.targets, c)
    alone = torch.cat([flow_losses(base(), tokens, [target], c) for target in batch.targets])
    assert len({len(t.prompt.split()) for t in batch.targets}) == 2
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)


def test_dropped_slots_change_the_loss_and_no_slots_is_the_plain_prompt(batches):
    c, target = batches.config, batches[0].targets[0]
    tokens = encoder()(batches[0].references).detach()

    def loss(slots: list[int], values: torch.Tensor = tokens) -> float:
        return flow_losses(base(), values, [dataclasses.replace(target, slots=slots)], c).item()

    assert loss(list(range(16))) != loss(list(range(4, 16)))
    assert loss([]) == loss([], torch.zeros_like(tokens))


@pytest.mark.parametrize("point", ["output", "input"])
def test_a_few_steps_on_one_batch_lower_its_loss(batches, point):
    c = dataclasses.replace(batches.config, injection=dataclasses.replace(batches.config.injection, point=point))
    e = encoder(point=point)
    optimizer = make_optimizer(e, c.train)
    batch = dataclasses.replace(batches[0], step=50)  # after the warm-up
    rows = [train_step(base(), e, optimizer, batch, c) for _ in range(6)]
    assert rows[-1]["loss"] < rows[0]["loss"] - 1e-3
    assert rows[0]["grad_norm"] > 0


def test_no_tokens_means_no_gradient(batches):
    """The reason why train.drop_references is 0 by default: with a frozen base such a target teaches nothing."""
    e, c, batch = encoder(), batches.config, batches[0]
    batch = dataclasses.replace(batch, targets=[dataclasses.replace(t, slots=[]) for t in batch.targets])
    loss, _ = training_loss(base(), e, batch, c)
    assert not loss.requires_grad


def test_loss_that_is_not_finite_stops_before_anything_changes(batches):
    e, c = encoder(), batches.config
    optimizer = make_optimizer(e, c.train)
    before = {name: tensor.clone() for name, tensor in e.trained_state().items()}
    target = batches[0].targets[0]
    poisoned = dataclasses.replace(batches[0], targets=[dataclasses.replace(target, noise=target.noise * float("nan"))])
    with pytest.raises(TrainingError, match=r"step 1: loss nan.*states seed_"):
        train_step(base(), e, optimizer, poisoned, c)
    assert all(torch.equal(before[name], tensor) for name, tensor in e.trained_state().items())
    assert not optimizer.state_dict()["state"]


def test_contrast_is_part_of_the_loss_when_it_is_asked_for(batches):
    c = dataclasses.replace(
        batches.config,
        train=dataclasses.replace(batches.config.train, contrast_weight=0.5, max_references=1, targets_per_state=1),
    )
    batch = Batches(c, batches.states, batches.shape, batches.mu, None)[0]
    loss, parts = training_loss(base(), encoder(), batch, c)
    torch.testing.assert_close(loss.detach(), parts["flow"] + 0.5 * parts["contrast"])


def test_warm_up_is_linear_then_constant():
    settings = dataclasses.replace(config.tiny().train, warmup_steps=4, learning_rate=1.0)
    assert [learning_rate(step, settings) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]

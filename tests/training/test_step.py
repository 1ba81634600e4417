import dataclasses
import traceback

import pytest
import torch
from PIL import Image
from torch.optim import AdamW
from torch.utils._python_dispatch import TorchDispatchMode

from harald import config
from harald.config import Config, Phase
from harald.data.index import states_for
from harald.data.parts import mask_file
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.injection.prompt import parse
from harald.training.batch import Batch, Batches, Targets, collate
from harald.training.loop import Step, gradients, learning_rate, make_optimizer, train_step
from harald.training.step import flow_losses, target_losses, training_loss
from tests.models import base, encoder
from tests.states import write_dataset


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    c = config.tiny()
    states = states_for(write_dataset(tmp_path_factory.mktemp("root"), states=6), c)
    shape, mu = base().latent_shape(c.data.image_size)
    return Batches(c, states, shape, mu, None, encoder().chats, base().tokenize)


def stepped(e: PersonEncoder, optimizer: AdamW, parts: list[Batch], c: Config) -> Step:
    return train_step(gradients(base(), e, c), e, optimizer, parts, c)


def collated(targets: list, c: Config) -> Targets:
    return collate(base().tokenize, targets, c.encoder.tokens, c)


@pytest.mark.parametrize("point", ["output", "input"])
def test_loss_and_gradient_of_a_target_do_not_depend_on_the_other_targets(batches, point):
    """Prompts of unequal length are padded and the padding is masked: each target has the loss it has alone."""
    c = dataclasses.replace(batches.config, injection=dataclasses.replace(batches.config.injection, point=point))
    tokens = encoder().tokens(batches[0].references).detach().requires_grad_()
    first, *others = batches.targets(0, batches[0].pairs)
    targets = [dataclasses.replace(first, prompt="photo of <person>", slots=[0, 1]), *others]
    assert collated(targets, c).layout.mask is not None and collated([first], c).layout.mask is None
    together = flow_losses(base(), tokens, collated(targets, c), c)
    alone = torch.cat([flow_losses(base(), tokens, collated([target], c), c) for target in targets])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)
    one, other = (torch.autograd.grad(losses.sum(), tokens)[0] for losses in (together, alone))
    assert one.abs().max() > 0 and (one - other).norm() <= 1e-4 * other.norm()


def test_dropped_slots_change_the_loss_and_no_slots_is_the_plain_prompt(batches):
    c, batch = batches.config, batches[0]
    target, tokens = batches.targets(0, batch.pairs)[0], encoder().tokens(batch.references).detach()

    def loss(slots: list[int], values: torch.Tensor = tokens) -> float:
        return flow_losses(base(), values, collated([dataclasses.replace(target, slots=slots)], c), c).item()

    assert loss(list(range(16))) != loss(list(range(4, 16)))
    assert loss([]) == loss([], torch.zeros_like(tokens))


@pytest.mark.parametrize("point", ["output", "input"])
def test_a_few_steps_on_one_batch_lower_its_loss(batches, point):
    c = dataclasses.replace(batches.config, injection=dataclasses.replace(batches.config.injection, point=point))
    e = encoder(point=point)
    optimizer = make_optimizer(e, c.train)
    batch = dataclasses.replace(dataclasses.replace(batches, config=c)[0], step=50)  # after the warm-up
    rows = [stepped(e, optimizer, [batch], c).row() for _ in range(6)]
    assert rows[-1]["loss"] < rows[0]["loss"] - 1e-3
    assert rows[0]["grad_norm"] > 0


def test_no_tokens_means_no_gradient(batches):
    """The reason why train.drop_references is 0 by default: with a frozen base such a target teaches nothing."""
    e, c, batch = encoder(), batches.config, batches[0]
    targets = [dataclasses.replace(target, slots=[]) for target in batches.targets(0, batch.pairs)]
    batch = dataclasses.replace(batch, targets=collated(targets, c))
    loss, _ = training_loss(base(), e, batch, c)
    assert not loss.requires_grad


def moments(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [state[name] for state in optimizer.state.values() for name in ("step", "exp_avg", "exp_avg_sq")]


def test_loss_that_is_not_finite_stops_before_anything_changes(batches):
    e, c = encoder(), batches.config
    optimizer = make_optimizer(e, c.train)
    before = {name: tensor.clone() for name, tensor in e.trained_state().items()}
    targets = batches[0].targets
    poisoned = dataclasses.replace(batches[0], targets=dataclasses.replace(targets, noise=targets.noise * float("nan")))
    first = stepped(e, optimizer, [poisoned], c)
    stepped(e, optimizer, [dataclasses.replace(batches[1], step=50)], c)  # begun before the first is looked at
    assert all(torch.equal(before[name], tensor) for name, tensor in e.trained_state().items())
    assert {moment.abs().max().item() for moment in moments(optimizer)} == {0.0}
    with pytest.raises(TrainingError, match=r"step 1: loss nan.*states seed_"):
        first.row()


def test_contrast_is_part_of_the_loss_when_it_is_asked_for(batches):
    c = dataclasses.replace(
        batches.config,
        train=dataclasses.replace(batches.config.train, contrast_weight=0.5, max_references=1, targets_per_state=1),
    )
    batch = dataclasses.replace(batches, config=c)[0]
    loss, parts = training_loss(base(), encoder(), batch, c)
    torch.testing.assert_close(loss.detach(), parts["flow"] + 0.5 * parts["contrast"])


def test_warm_up_is_linear_then_constant():
    settings = dataclasses.replace(config.tiny().train, warmup_steps=4, learning_rate=1.0)
    assert [learning_rate(step, settings) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_rate_falls_within_a_phase_whatever_the_length_of_the_run():
    phases = (Phase("one", 4), Phase("two", 4, (1.0, 0.2)), Phase("three", 2, (0.5, 0.0)))
    settings = dataclasses.replace(config.tiny().train, warmup_steps=1, learning_rate=1.0, phases=phases)
    rates = [learning_rate(step, settings) for step in range(12)]
    assert rates == pytest.approx([1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.5, 0.25, 0, 0])


def taught(batches: Batches, **changes) -> Batches:
    train = dataclasses.replace(batches.config.train, teacher_weight=1.0, flow_weight=0.0, **changes)
    return dataclasses.replace(batches, config=dataclasses.replace(batches.config, train=train))


def test_teacher_is_the_base_model_under_the_full_description(batches):
    """A target without tokens whose prompt has the description already is exactly what the teacher draws."""
    with_teacher = taught(batches, state_free_share=1.0, drop_text=0.0)
    batch, c = with_teacher[0], with_teacher.config
    targets = with_teacher.targets(0, batch.pairs)
    views = [view for pair in batch.pairs for view in pair.targets]
    assert [target.described for target in targets] == [view.prompt for view in views]
    same = [dataclasses.replace(t, prompt=f"{t.described} <person>", slots=[]) for t in targets]
    same = [dataclasses.replace(t, described=parse(t.prompt).with_word(c.injection.class_word)) for t in same]
    tokens = encoder().tokens(batch.references)
    _, teacher = target_losses(base(), tokens, collated(same, c), c)
    assert teacher.abs().max() < 1e-10
    _, teacher = target_losses(base(), tokens, collated(targets, c), c)
    assert teacher.min() > 1e-6


def test_teacher_says_the_description_where_the_text_is_dropped(batches):
    with_teacher = taught(batches, drop_text=1.0)
    pairs = with_teacher[0].pairs
    owners = [pair.state.person for pair in pairs for _ in pair.targets]
    assert [target.described for target in with_teacher.targets(0, pairs)] == owners and all(owners)


def test_steps_towards_the_teacher_lower_its_loss(batches):
    with_teacher, e = taught(batches), encoder()
    optimizer = make_optimizer(e, with_teacher.config.train)
    batch = dataclasses.replace(with_teacher[0], step=50)
    rows = [stepped(e, optimizer, [batch], with_teacher.config).row() for _ in range(6)]
    assert rows[0]["loss"] == rows[0]["teacher"] and rows[-1]["teacher"] < rows[0]["teacher"]


def test_teacher_counts_less_where_the_picture_teaches(batches):
    c = taught(batches, drop_group=0.5, state_free_share=1.0, drop_text=0.0).config
    wanted = dataclasses.replace(batches, config=c)
    batch = next(found for step in range(9) if 0 < (found := wanted[step]).targets.shown.mean() < 1)
    e = encoder()

    def teacher(share: float) -> torch.Tensor:
        settings = dataclasses.replace(c.train, teacher_beside=share)
        return training_loss(base(), e, batch, dataclasses.replace(c, train=settings))[1]["teacher"]

    _, each = target_losses(base(), e.tokens(batch.references), batch.targets, c)
    torch.testing.assert_close(teacher(1.0), each.mean())
    torch.testing.assert_close(teacher(0.0), (each * (1 - batch.targets.shown)).mean())


def test_patches_with_small_parts_weigh_more_in_both_losses_and_in_pieces_too(batches):
    for state in batches.states:
        for view in state.views:
            mask = Image.new("L", (view.width, view.height))
            mask.paste(255, (0, 0, view.width // 2, view.height // 2))
            mask.save(mask_file(view.image))
    weighted = taught(batches, part_weight=5.0)
    c, batch, tokens = weighted.config, weighted[0], encoder().tokens(batches[0].references).detach()
    corner = torch.zeros(4, 4)
    corner[:2, :2] = 1
    expected = (1 + 4 * corner.flatten()) / 2
    assert torch.equal(batch.targets.weights, expected.expand(len(batch.targets), -1))

    def losses(weights: torch.Tensor | None) -> torch.Tensor:
        rows = None if weights is None else weights.expand(len(batch.targets), -1)
        return torch.stack(target_losses(base(), tokens, dataclasses.replace(batch.targets, weights=rows), c))

    inside, outside = losses(corner.flatten()), losses(1 - corner.flatten())
    torch.testing.assert_close(losses(expected), 2.5 * inside + 0.5 * outside)
    torch.testing.assert_close(losses(None), inside + outside)
    assert (losses(expected) / losses(None) - 1).abs().min() > 0.01
    last = target_losses(base(), tokens, batch.targets.piece(1, 2), c)
    torch.testing.assert_close(torch.stack(last)[:, 0], losses(expected)[:, 1], rtol=1e-5, atol=1e-6)


class Questions(TorchDispatchMode):
    """Operators with which the host asks the device for a number, and hands one over."""

    ASKING = ("aten._local_scalar_dense", "aten.nonzero", "aten.equal", "aten.masked_select", "aten.lift_fresh")

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).startswith(self.ASKING):
            self.asked.append((str(function), "".join(traceback.format_stack(limit=12))))
        return function(*args, **(kwargs or {}))


def test_a_step_asks_the_device_for_nothing(batches):
    """On a GPU each question makes the host wait for all that it has launched. The first step may ask: it keeps what
    depends on sizes alone.
    """
    e, c = encoder(), batches.config
    batch = next(found for n in range(9) if (found := batches[n]).targets.layout.mask is not None)
    optimizer = make_optimizer(e, c.train)
    stepped(e, optimizer, [batch], c)
    with Questions() as questions:
        stepped(e, optimizer, [batch], c)
    assert questions.asked == []
    with Questions() as questions:
        stepped(encoder(), make_optimizer(encoder(), c.train), [batch], c).row()
    assert "aten._local_scalar_dense.default" in dict(questions.asked)


def test_batch_goes_to_a_device_with_all_that_it_computes_with(batches):
    moved = batches[0].to(torch.device("meta"))
    assert {
        t.device.type for t in (moved.targets.noise, moved.targets.layout.ids, moved.references[0][1].patches[0])
    } == {"meta"}
    chat = moved.references[0][1]
    assert (chat.kinds.device.type, chat.grids) == ("cpu", batches[0].references[0][1].grids)

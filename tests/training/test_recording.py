"""What a recording may bake in, without a GPU: recordings are replaced by the function that would be recorded."""

import dataclasses

import pytest
import torch

from harald import config
from harald.data.index import states_for
from harald.training import recording
from harald.training.batch import MULTIPLE, Batches
from harald.training.recording import Recorder
from harald.training.step import measured_gradients, target_losses
from tests.models import base, encoder
from tests.states import write_dataset

STEPS = 24


@pytest.fixture(scope="module")
def batches(tmp_path_factory) -> Batches:
    c = config.tiny()
    settings = dataclasses.replace(
        c.train, recorded=True, drop_group=0.5, teacher_weight=1.0, contrast_weight=0.1, override_share=0.3
    )
    c = dataclasses.replace(c, train=settings)
    states = states_for(write_dataset(tmp_path_factory.mktemp("root"), states=6), c)
    shape, mu = base().latent_shape(c.data.image_size)
    return Batches(c, states, shape, mu, None, encoder().chats, base().tokenize)


def test_a_recording_computes_any_batch_of_its_sizes(batches, monkeypatch):
    """Whatever differs between two batches of a recording must come in with the tensors."""
    monkeypatch.setattr(recording, "Recording", lambda function, sample, pool, stream: function)
    e, served = encoder(), 0
    recorder = Recorder(base(), e, batches.config)
    for step in range(STEPS):
        before = len(recorder.recordings)
        gradients, values = recorder(batches[step])
        served += len(recorder.recordings) == before
        expected, measured = measured_gradients(base(), e, batches[step], batches.config)
        assert all(map(torch.equal, gradients, expected)) and torch.equal(values, measured)
    assert served >= STEPS // 4, "too few batches were computed by the recording of another one"
    assert len({float(batches[step].targets.of[1]) for step in range(STEPS)}) > 1
    assert len({len(batches[step].targets.layout.put) // len(batches[step].targets) for step in range(STEPS)}) == 1


def test_room_for_all_lengths_changes_no_loss(batches):
    """Padding, and tokens that stand nowhere, are not seen."""
    exact = dataclasses.replace(batches.config, train=dataclasses.replace(batches.config.train, recorded=False))
    e = encoder()
    for step in range(4):
        roomy, tight = batches[step], dataclasses.replace(batches, config=exact)[step]
        assert roomy.targets.layout.ids.shape[1] % MULTIPLE == 0 == roomy.targets.layout.mask.shape[1] % MULTIPLE
        assert roomy.targets.layout.ids.numel() > tight.targets.layout.ids.numel()
        tokens = e.tokens(roomy.references).detach().requires_grad_()
        got, expected = (target_losses(base(), tokens, b.targets, exact) for b in (roomy, tight))
        torch.testing.assert_close(got, expected, rtol=0, atol=2e-6)
        one, other = (torch.autograd.grad((flow + taught).sum(), tokens)[0] for flow, taught in (got, expected))
        assert one.abs().max() > 0 and (one - other).norm() <= 1e-4 * other.norm()


def test_too_many_sizes_are_recorded_again_and_change_no_bit(batches, monkeypatch, caplog):
    monkeypatch.setattr(recording, "Recording", lambda function, sample, pool, stream: function)
    monkeypatch.setattr(recording, "MOST", 1)
    recorder = Recorder(base(), encoder(), batches.config)
    train = batches.config.train
    for step in range(6):
        gradients, values = recorder(batches[step])
        expected, measured = measured_gradients(base(), encoder(), batches[step], batches.config)
        assert all(map(torch.equal, gradients, expected)) and torch.equal(values, measured)
        assert len(recorder.recordings) == 1
    needed = train.max_references + train.targets_per_state
    assert caplog.text.count("more than 1 different sizes") == 1 and f" {needed} or more views" in caplog.text

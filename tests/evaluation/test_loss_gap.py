import torch

from harald import config
from harald.data.index import states_for
from harald.evaluation.loss_gap import ARMS, arm_losses, loss_table
from tests.models import base
from tests.states import write_dataset


def test_each_state_is_measured_with_its_own_no_and_other_tokens_under_the_same_noise(tmp_path):
    states = states_for(write_dataset(tmp_path, states=2), config.tiny())
    tokens = torch.randn(2, config.tiny().encoder.tokens, base().width, generator=torch.Generator().manual_seed(0))
    views = [state.views[0] for state in states]
    losses = arm_losses(base(), tokens, [1, 0], views, config.tiny())
    assert losses.shape == (2, len(ARMS)) and len(set(losses[0].tolist())) == 3
    assert arm_losses(base(), tokens, [0, 1], views, config.tiny())[:, 2].tolist() == losses[:, 0].tolist()


def test_table_sets_every_arm_against_the_own_tokens():
    losses = torch.tensor([[1.0, 1.5, 1.2], [2.0, 2.5, 2.4]], dtype=torch.float64)
    table = loss_table(losses, torch.arange(2), seed=0)
    assert table["own tokens"][0].value == 1.5 and table["own tokens"][1].value == 0.0
    worse = table["no tokens"][1]
    assert (worse.value, worse.low, worse.high) == (0.5, 0.5, 0.5)

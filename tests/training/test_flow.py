import torch

from harald.training.contrast import contrastive_loss
from harald.training.flow import draw_times, interpolate, shift, velocity_loss, velocity_target
from tests.models import base


def test_velocity_leads_from_the_picture_to_the_noise():
    x, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    v = velocity_target(x, noise)
    t = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(interpolate(x, noise, t) + (1 - t)[:, None, None] * v, noise)
    torch.testing.assert_close(interpolate(x, noise, t) - t[:, None, None] * v, x)


def test_sign_and_time_are_those_of_the_samplers_schedule():
    """One scheduler step with the true velocity lands on the interpolation at the next sigma."""
    scheduler = base().pipeline.scheduler
    scheduler.set_timesteps(sigmas=[1.0, 0.6, 0.2], mu=0.7)
    x, noise = torch.randn(1, 4, 64), torch.randn(1, 4, 64)
    first, second = scheduler.sigmas[0], scheduler.sigmas[1]
    start = interpolate(x, noise, first[None])
    stepped = scheduler.step(velocity_target(x, noise), scheduler.timesteps[0], start, return_dict=False)[0]
    torch.testing.assert_close(stepped, interpolate(x, noise, second[None]), atol=1e-5, rtol=1e-5)


def test_shift_is_the_schedulers():
    t = torch.linspace(0.05, 0.95, 7)
    torch.testing.assert_close(shift(t, 0.8), base().pipeline.scheduler.time_shift(0.8, 1.0, t))


def test_loss_is_per_sample_and_zero_for_the_truth():
    target = torch.randn(3, 4, 5)
    predicted = target.clone()
    predicted[1] += 2
    torch.testing.assert_close(velocity_loss(predicted, target), torch.tensor([0.0, 4.0, 0.0]))


def test_weights_of_patches_are_those_of_their_squared_errors():
    predicted, target = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 2.0, 2.0, 0.0]])
    errors = (predicted - target).square().mean(2)
    expected = torch.stack([errors[0, 0], errors[1].mean(), errors[2, 1:3].mean()])
    torch.testing.assert_close(velocity_loss(predicted, target, weights), expected)


def test_uniform_share_puts_real_mass_near_noise():
    def share_above(uniform: float) -> float:
        draws = torch.cat([draw_times(torch.Generator().manual_seed(i), uniform, mu=0.0) for i in range(2000)])
        assert draws.min() > 0 and draws.max() < 1
        return (draws > 0.95).float().mean().item()

    assert share_above(0.0) < 0.01 < 0.03 < share_above(1.0) < 0.07


def test_contrast_falls_when_the_same_state_agrees():
    a = torch.randn(4, 3, 8)
    assert contrastive_loss(a, a + 0.01 * torch.randn_like(a), 0.1) < contrastive_loss(a, a.roll(1, 0), 0.1)


def test_contrast_counts_each_vector_of_a_slot_as_much_whatever_its_scale():
    first, second = torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(0))
    loss = contrastive_loss(first, second, 0.1, vectors=2)
    scaled = torch.cat([100 * first[..., :8], first[..., 8:]], -1)
    torch.testing.assert_close(contrastive_loss(scaled, second, 0.1, vectors=2), loss)
    assert (contrastive_loss(scaled, second, 0.1) - contrastive_loss(first, second, 0.1)).abs() > 1e-2

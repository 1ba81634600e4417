"""Does the person in the pictures help to draw a view that was not shown? The flow loss answers without a judge."""

from collections.abc import Sequence

import numpy as np
import torch

from harald.base import BaseModel
from harald.config import Config
from harald.data.images import load_picture, target_tensor, within_pixels
from harald.determinism import generator, rng
from harald.encoder.model import PersonEncoder
from harald.records import State, View
from harald.training.batch import Target, collate
from harald.training.step import flow_losses

ARMS = ("own tokens", "no tokens", "another state's tokens")


def split_views(state: State, config: Config) -> tuple[tuple[View, ...], View]:
    """References, and one held-out view of the same domain where there is one."""
    views = list(state.views)
    rng(config.seed, "views", state.state_id).shuffle(views)
    target = views.pop()
    same = [v for v in views if v.domain == target.domain] or views
    return tuple(same[: config.train.max_references]), target


@torch.no_grad()
def predict_all(encoder: PersonEncoder, references: Sequence[Sequence[View]]) -> torch.Tensor:
    """[states, K, d]."""
    limit = encoder.config.max_pixels
    return torch.cat([encoder([[within_pixels(load_picture(v.image), limit) for v in views]]) for views in references])


@torch.no_grad()
def arm_losses(base: BaseModel, tokens: torch.Tensor, index: int, view: View, config: Config) -> list[float]:
    """Mean loss over the fixed times for each arm, the same noise in all."""
    shape, _ = base.latent_shape(config.data.image_size)
    pixels = target_tensor(load_picture(view.image), config.data.image_size)
    everything = list(range(tokens.shape[1]))
    base.use_domain(view.domain)

    def loss(owner: int, slots: list[int]) -> float:
        targets = [
            Target(owner, view.person_prompt, pixels, None, torch.tensor([t]),
                   torch.randn(shape, generator=generator(config.seed, "evaluate", index, str(t))), slots)
            for t in config.evaluate.timesteps
        ]  # fmt: skip
        return flow_losses(base, tokens, collate(base.tokenize, targets, tokens.shape[1], config), config).mean().item()

    other = (index + 1) % len(tokens)
    return [loss(index, everything), loss(index, []), loss(other, everything)]


def interval(values: np.ndarray, seed: int, draws: int = 2000) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval over states."""
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}

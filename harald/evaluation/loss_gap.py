"""Does the person in the pictures help to draw a view that was not shown? The flow loss answers without a judge."""

from collections.abc import Sequence

import torch
from torch import Tensor

from harald.base import BaseModel
from harald.config import Config
from harald.data.images import load_picture, target_tensor
from harald.determinism import generator
from harald.evaluation.accuracy import Score
from harald.evaluation.paired import mean
from harald.records import View
from harald.training.batch import Target, collate
from harald.training.step import flow_losses

ARMS = ("own tokens", "no tokens", "another person's tokens")


def loss_table(losses: Tensor, people: Tensor, seed: int) -> dict[str, tuple[Score, Score]]:
    """Arm -> its loss, and by how much it is worse than the own tokens'. losses: [states, ARMS]; people: [states]."""
    return {
        arm: (mean(losses[:, place], people, seed), mean(losses[:, place] - losses[:, 0], people, seed))
        for place, arm in enumerate(ARMS)
    }


@torch.no_grad()
def arm_losses(
    base: BaseModel, tokens: Tensor, others: Sequence[int], targets: Sequence[View], config: Config
) -> Tensor:
    """[states, ARMS] float64: mean loss on one view of each state over the fixed times, the same noise in all arms.

    tokens: [states, K, d]; others: for each state one of another person.
    """
    return torch.tensor(
        [_losses(base, tokens, place, others[place], view, config) for place, view in enumerate(targets)],
        dtype=torch.float64,
    )


def _losses(base: BaseModel, tokens: Tensor, own: int, other: int, view: View, config: Config) -> list[float]:
    shape, _ = base.latent_shape(config.data.image_size)
    pixels = target_tensor(load_picture(view.image), config.data.image_size)
    latents = base.encode_images(pixels[None])[0].float()
    everything = list(range(tokens.shape[1]))
    base.use_domain(view.domain)

    def loss(owner: int, slots: list[int]) -> float:
        targets = [
            Target(owner, view.person_prompt, None, latents, torch.tensor([t]),
                   torch.randn(shape, generator=generator(config.seed, "evaluate", own, str(t))), slots)
            for t in config.evaluate.timesteps
        ]  # fmt: skip
        return flow_losses(base, tokens, collate(base.tokenize, targets, tokens.shape[1], config), config).mean().item()

    return [loss(own, everything), loss(own, []), loss(other, everything)]

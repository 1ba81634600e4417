"""Pictures of persons that no training has seen, with the truth about them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from harald.config import Pretrain
from harald.determinism import rng
from harald.proving_ground.dataset import renderers
from harald.proving_ground.persons import Rendered, rendered


@dataclass(frozen=True)
class Views:
    """n views. images: uint8 [n, S, S, 3]; labels: int64 [n, A], -1 where hidden; state, number, identity: int64 [n];
    prompts: the full text of each."""

    images: Tensor
    labels: Tensor
    state: Tensor
    number: Tensor
    identity: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def pick(self, chosen: Sequence[int]) -> "Views":
        rows = list(chosen)
        return Views(
            self.images[rows], self.labels[rows], self.state[rows], self.number[rows], self.identity[rows],
            tuple(self.prompts[row] for row in rows),
        )  # fmt: skip


def held_out(seed: int, states: int, pretrain: Pretrain) -> Views:
    """All views of the first held-out states, in order. The number of processes changes nothing."""
    workers = min(pretrain.workers, os.cpu_count() or 1, states)
    count, views, side = states, pretrain.views, pretrain.side
    arguments = ([seed] * count, range(count), [views] * count, [side] * count)
    with renderers(workers) as executor:
        made = list(map(_render, *arguments) if executor is None else executor.map(_render, *arguments))
    return Views(
        images=torch.from_numpy(np.concatenate([one.images for one in made])),
        labels=torch.from_numpy(np.concatenate([one.labels for one in made])).long(),
        state=torch.arange(count).repeat_interleave(views),
        number=torch.arange(views).repeat(count),
        identity=torch.tensor([one.identity for one in made]).repeat_interleave(views),
        prompts=tuple(full for one in made for full, _ in one.prompts),
    )


def sample(seed: int, views: int, count: int) -> list[int]:
    """`count` numbers of views in random order; a smaller sample is the beginning of a larger one."""
    order = list(range(views))
    rng(seed, "measure_mini", "sample").shuffle(order)
    return order[:count]


def _render(seed: int, index: int, views: int, side: int) -> Rendered:
    return rendered(seed, index, held_out=True, views=views, side=side)

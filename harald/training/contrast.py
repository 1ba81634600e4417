"""Contrast between the states of a batch: the same state through disjoint references is the positive."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(first: Tensor, second: Tensor, temperature: float, vectors: int = 1) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), both directions. first, second: [b, K, d], same states.

    vectors: that stand side by side in d, each of which counts as much whatever its scale.
    """
    both = zip(first.float().chunk(vectors, -1), second.float().chunk(vectors, -1), strict=True)
    alike = [F.normalize(a.flatten(1), dim=-1) @ F.normalize(b.flatten(1), dim=-1).T for a, b in both]
    logits = sum(alike[1:], alike[0]) / vectors / temperature
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

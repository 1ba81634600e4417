"""Contrast between the states of a batch: the same state through disjoint references is the positive."""

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), both directions. first, second: [b, K, d], same states."""
    a, b = (F.normalize(tokens.float().flatten(1), dim=-1) for tokens in (first, second))
    logits = a @ b.T / temperature
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

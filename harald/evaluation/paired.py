"""Intervals of what is compared picture by picture: both sides of a comparison see the same drawn persons."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from harald.determinism import generator
from harald.evaluation.accuracy import DRAWS, LEVEL, Score


def resampled(measure: Callable[..., Tensor], rows: Sequence[Tensor], identities: Tensor, seed: int = 0) -> Score:
    """A function of sums over pictures, with its 95 % bootstrap interval over identities.

    rows: each [n, k], what a picture adds. measure: the sums, each [draws, k] -> [draws]. identities: [n]. The draws
    are those of evaluation.accuracy. Not a number if there is no picture.
    """
    if not len(identities):
        return Score(torch.nan, torch.nan, torch.nan, 0)
    names, people = identities.unique(return_inverse=True)
    sums = [row.new_zeros(len(names), row.shape[1], dtype=torch.float64).index_add(0, people, row) for row in rows]
    picks = torch.randint(len(names), (DRAWS, len(names)), generator=generator(seed, "bootstrap"))
    weights = torch.zeros(DRAWS, len(names), dtype=torch.float64)
    weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
    value = measure(*(part.sum(0, keepdim=True) for part in sums)).item()
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = measure(*(weights @ part for part in sums)).nanquantile(edges).tolist()
    return Score(value, low, high, len(identities))


def mean(values: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """Mean of values, [n]; rows that are not a number do not count."""
    there = ~values.isnan()
    values, identities = values[there].double(), identities[there]

    def measure(total: Tensor, count: Tensor) -> Tensor:
        return (total / count).squeeze(1)

    return resampled(measure, (values[:, None], torch.ones_like(values)[:, None]), identities, seed)


def psnr(errors: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """dB. errors: [n] float64, mean square of each picture's values in 0..1. The mean is taken before the logarithm."""

    def measure(squares: Tensor, pictures: Tensor) -> Tensor:
        return (-10 * (squares / pictures).clamp(min=1e-12).log10()).squeeze(1)

    return resampled(measure, (errors[:, None], torch.ones_like(errors)[:, None]), identities, seed)


def loss_in_points(before: Tensor, after: Tensor, truth: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """100 times the balanced accuracy of `before` minus that of `after`. All [n]; truth -1 does not count."""

    def measure(first: Tensor, second: Tensor, total: Tensor) -> Tensor:
        return 100 * ((first / total).nanmean(1) - (second / total).nanmean(1))

    return _compared(measure, before, after, truth, identities, seed)


def ratio(predicted: Tensor, ceiling: Tensor, truth: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """Balanced accuracy of `predicted` over that of `ceiling`. All [n]; truth -1 does not count."""

    def measure(first: Tensor, second: Tensor, total: Tensor) -> Tensor:
        return (first / total).nanmean(1) / (second / total).nanmean(1)

    return _compared(measure, predicted, ceiling, truth, identities, seed)


def _compared(
    measure: Callable[..., Tensor], first: Tensor, second: Tensor, truth: Tensor, identities: Tensor, seed: int
) -> Score:
    seen = truth >= 0
    first, second, truth, identities = first[seen], second[seen], truth[seen].long(), identities[seen]
    if not len(truth):
        return Score(torch.nan, torch.nan, torch.nan, 0)
    total = one_hot(truth).double()
    hits = (total * (guess == truth)[:, None] for guess in (first, second))
    return resampled(measure, (*hits, total), identities, seed)

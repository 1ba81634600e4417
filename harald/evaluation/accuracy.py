"""How often the judge agrees with the truth, with intervals over persons: their pictures are not independent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harald.determinism import generator
from harald.evaluation.judge import Reading

DRAWS, LEVEL = 1000, 0.95  # bootstrap resamples; share of them that the interval holds
CHUNK = 64  # resamples at a time: bounds the memory


@dataclass(frozen=True)
class Score:
    """A value with its 95 % bootstrap interval over identities; count: the pictures (or pairs) that it rests on.

    Not a number where nothing could be measured.
    """

    value: float
    low: float
    high: float
    count: int


def balanced_accuracy(predicted: Tensor, truth: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """Mean recall over the classes that occur. All [n]; rows with truth -1 (cannot be seen) do not count."""
    seen = truth >= 0
    predicted, truth, (people, count) = predicted[seen], truth[seen].long(), _people(identities[seen])
    if not len(truth):
        return Score(torch.nan, torch.nan, torch.nan, 0)
    size = (count, int(truth.max()) + 1)
    ones = torch.ones(len(truth), dtype=torch.float64)
    total = torch.zeros(size, dtype=torch.float64).index_put((people, truth), ones, accumulate=True)
    hits = (predicted == truth).double()
    right = torch.zeros(size, dtype=torch.float64).index_put((people, truth), hits, accumulate=True)

    def measure(weights: Tensor) -> Tensor:
        return (weights @ right / (weights @ total)).nanmean(1)

    return _score([measure(w) for w in _resamples(count, seed)], len(truth))


def attribute_table(reading: Reading, labels: Tensor, identities: Tensor, seed: int = 0) -> dict[str, Score]:
    """Attribute -> balanced accuracy where the truth says visible. labels: [n, A], identities: [n]."""
    index, labels, identities = reading.index.cpu(), labels.cpu(), identities.cpu()
    return {
        name: balanced_accuracy(index[:, place], labels[:, place], identities, seed)
        for place, name in enumerate(reading.log_probability)
    }


def visible_table(reading: Reading, labels: Tensor, identities: Tensor, seed: int = 0) -> dict[str, Score]:
    """Attribute -> area under the curve of "can be seen" against "cannot" (label -1)."""
    visible, labels, identities = reading.visible.double().cpu(), labels.cpu(), identities.cpu()
    return {
        name: auc(visible[:, place], labels[:, place] >= 0, (identities,), seed)
        for place, name in enumerate(reading.log_probability)
    }


def identity_auc(embedding: Tensor, states: Tensor, identities: Tensor, seed: int = 0) -> Score:
    """Is a person in another state more alike than another person? Area under the curve over pairs of states.

    embedding: [n, d] of pictures; states, identities: [n]. The pictures of a state are averaged first. Pairs of one
    state do not count: hair and glasses would answer for the face.
    """
    embedding, states, identities = embedding.double().cpu(), states.cpu(), identities.cpu()
    names, place = states.unique(return_inverse=True)
    mean = torch.nn.functional.normalize(
        torch.zeros(len(names), embedding.shape[1]).double().index_add(0, place, embedding)
    )
    person = torch.zeros(len(names), dtype=torch.long).index_put((place,), identities.long())
    one, other = torch.triu_indices(len(names), len(names), offset=1)
    return auc((mean[one] * mean[other]).sum(1), person[one] == person[other], (person[one], person[other]), seed)


def auc(scores: Tensor, positive: Tensor, identities: Sequence[Tensor], seed: int = 0) -> Score:
    """Chance that a positive scores above a negative, ties counting half (Mann-Whitney).

    scores, positive: [n]. identities: the one or two persons that each row is about, [n] each; a row weighs as often
    as its persons were drawn, a pair of one person once for it.
    """
    if not len(scores):
        return Score(torch.nan, torch.nan, torch.nan, 0)
    people, count = _people(torch.stack(list(identities), 1))
    _, order = scores.unique(return_inverse=True)
    groups, positive = int(order.max()) + 1, positive.double()
    same = people[:, 0] == people[:, -1]

    def measure(weights: Tensor) -> Tensor:
        rows = weights[:, people[:, 0]] * torch.where(same, 1.0, weights[:, people[:, -1]])
        zeros = torch.zeros(len(weights), groups, dtype=torch.float64)
        up, down = zeros.index_add(1, order, rows * positive), zeros.index_add(1, order, rows * (1 - positive))
        below = down.cumsum(1) - down / 2
        return (up * below).sum(1) / (up.sum(1) * down.sum(1))

    return _score([measure(w) for w in _resamples(count, seed)], len(scores))


def relative(score: Score, ceiling: Score, floor: float = 0.0) -> Score:
    """Which share of the way from the floor (chance) to the ceiling is reached; the ceiling counts as exactly known."""
    value, low, high = ((part - floor) / (ceiling.value - floor) for part in (score.value, score.low, score.high))
    return Score(value, low, high, score.count)


def _people(identities: Tensor) -> tuple[Tensor, int]:
    """Identities of any numbering -> numbers from 0 of the same shape, and how many there are."""
    names, people = identities.unique(return_inverse=True)
    return people, len(names)


def _resamples(people: int, seed: int) -> list[Tensor]:
    """[chunk, people] float64: first the persons as they are, then how often each was drawn, DRAWS times."""
    picks = torch.randint(people, (DRAWS, people), generator=generator(seed, "bootstrap"))
    weights = torch.zeros(DRAWS, people, dtype=torch.float64)
    weights.scatter_add_(1, picks, torch.ones_like(picks, dtype=torch.float64))
    return [torch.ones(1, people, dtype=torch.float64), *weights.split(CHUNK)]


def _score(measured: list[Tensor], count: int) -> Score:
    draws = torch.cat(measured[1:])
    edges = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = draws.nanquantile(edges).tolist()
    return Score(measured[0].item(), low, high, count)

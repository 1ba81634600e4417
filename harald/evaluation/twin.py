"""The twin test: given one twin's tokens and a prompt that is silent, is the drawn look theirs and not the other's?"""

import torch
from torch import Tensor

from harald.evaluation.accuracy import Score
from harald.evaluation.paired import mean
from harald.evaluation.panel import Truth
from harald.evaluation.seen import Seen


def margins(seen: Seen, truth: Truth) -> Tensor:
    """[n] float64: log p(own class) - log p(the rival's class), summed over what differs and the target shows.

    Not a number where nothing of that kind is left.
    """
    total, counted = torch.zeros(len(truth), dtype=torch.float64), torch.zeros(len(truth), dtype=torch.bool)
    names = list(truth.attributes)
    for column in truth.state_columns:
        own, rival = truth.labels[:, column], truth.rivals[:, column]
        differs = (own >= 0) & (rival >= 0) & (own != rival)
        scores = seen.scores[names[column]].double()
        margin = (scores.gather(1, own.clamp(min=0)[:, None]) - scores.gather(1, rival.clamp(min=0)[:, None]))[:, 0]
        total, counted = total + torch.where(differs, margin, 0.0), counted | differs
    return torch.where(counted, total, torch.nan)


def twin_test(seen: Seen, truth: Truth, seed: int = 0) -> Score:
    """Share of the cells with a positive margin, ties counting half: 0.5 by chance. Look-alikes look the same: they do
    not count.
    """
    values = margins(seen, truth)
    wins = torch.where(values.isnan(), torch.nan, (values.sign() + 1) / 2)
    chosen = torch.tensor([relation != "look-alike" for relation in truth.relations])
    return mean(wins[chosen], truth.people[chosen], seed)

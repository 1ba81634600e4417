"""Is it this person, and not somebody who only looks the same?"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harald.evaluation.accuracy import Score
from harald.evaluation.paired import mean
from harald.evaluation.panel import Cell, Panel, Truth
from harald.evaluation.seen import Seen


def centres(panel: Panel, chosen: list[Cell], views: Seen) -> tuple[Tensor, Tensor] | None:
    """[n, d] twice: mean of the person's real views that are neither a reference nor the target, and of the rival's
    views of the same numbers. None if the judge knows no faces. views: of the whole panel, in order.
    """
    if views.identity is None:
        return None
    faces = views.identity.double().split([len(state.views) for state in panel.states])

    def centre(state: int, cell: Cell) -> Tensor:
        used = {cell.target, *cell.references}
        left = [number for number in range(len(faces[state])) if number not in used]
        return normalize(faces[state][left].mean(0), dim=0)  # not a number if none is left

    own = [centre(cell.state, cell) for cell in chosen]
    rival = [centre(panel.rivals[cell.state], cell) for cell in chosen]
    return torch.stack(own), torch.stack(rival)


def look_alike_test(seen: Seen, around: tuple[Tensor, Tensor], truth: Truth, seed: int = 0) -> Score:
    """Share of the look-alikes' cells drawn nearer to the right person's other views than to the look-alike's: 0.5 by
    chance. around: see `centres`.
    """
    assert seen.identity is not None, "centres were made from embeddings of the same judge"
    margin = (seen.identity.double() * (around[0] - around[1])).sum(1)
    wins = torch.where(margin.isnan(), torch.nan, (margin.sign() + 1) / 2)
    chosen = torch.tensor([relation == "look-alike" for relation in truth.relations])
    return mean(wins[chosen], truth.people[chosen], seed)

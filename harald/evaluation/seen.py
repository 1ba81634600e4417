"""What a judge says about pictures, whatever judge it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from harald.data.images import target_tensor
from harald.evaluation.judge import Judge

CHUNK = 64  # pictures at a time: bounds the memory


@dataclass(frozen=True)
class Seen:
    """n pictures. scores: attribute -> [n, classes], log-probabilities; a judge that only answers gives 0 to its answer
    and -1 to the rest. said: [n, A] number of the class, panel.UNREADABLE where it named none. identity: [n, d] of unit
    length, None if the judge knows no faces.
    """

    scores: dict[str, Tensor]
    said: Tensor
    identity: Tensor | None

    def __len__(self) -> int:
        return len(self.said)

    def pick(self, rows: Sequence[int]) -> "Seen":
        rows = list(rows)
        scores = {name: values[rows] for name, values in self.scores.items()}
        return Seen(scores, self.said[rows], None if self.identity is None else self.identity[rows])


class Seeing(Protocol):
    """A judge. attributes: name -> classes."""

    attributes: Mapping[str, tuple[str, ...]]

    def see(self, pictures: Sequence[Image.Image]) -> Seen:
        """At least one picture, of any size."""
        ...


class Classifier(Seeing):
    """The judge that was trained on the known truth; it says a class of everything, seen or not."""

    def __init__(self, judge: Judge):
        self.judge, self.attributes = judge, judge.attributes

    def see(self, pictures: Sequence[Image.Image]) -> Seen:
        side, device = self.judge.sizes["side"], next(self.judge.parameters()).device
        parts = []
        for start in range(0, len(pictures), CHUNK):
            pixels = [target_tensor(picture, side) for picture in pictures[start : start + CHUNK]]
            parts.append(self.judge.read(torch.stack(pixels).to(device)))
        return Seen(
            scores={name: torch.cat([part.log_probability[name].cpu() for part in parts]) for name in self.attributes},
            said=torch.cat([part.index.cpu() for part in parts]),
            identity=torch.cat([part.embedding.cpu() for part in parts]),
        )

"""The frozen base models behind one small Protocol."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor


class BaseModel(Protocol):
    """A frozen text-to-image flow model. Shapes: b batch, t text tokens, s image tokens, c channels, d width."""

    repo: str
    width: int  # d
    dtype: torch.dtype
    reserved_ids: list[int]  # vocabulary rows that no text uses
    tokenize: Callable[[str], list[int]]  # token ids of a piece of text, without the template; can travel to workers

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        ...

    def word_embeddings(self, ids: Tensor) -> Tensor:
        """[..., d] rows of the text encoder's input embedding."""
        ...

    def text_states(self, embeddings: Tensor) -> Tensor:
        """[b, head + t, d] input embeddings of the whole template -> [b, t, d] states, the head dropped."""
        ...

    def read(self, ids: Sequence[int]) -> Tensor:
        """[t, d] states of a template of words alone, its head dropped. Kept, so that a text that comes again is not
        encoded again: they are not to be written to.
        """
        ...

    def encode_images(self, pixels: Tensor) -> Tensor:
        """[b, 3, h, w] in -1..1 -> [b, s, c] normalised, packed latents."""
        ...

    def latent_shape(self, side: int) -> tuple[tuple[int, int], float]:
        """(s, c) of a side x side picture, and the time shift mu that the model's schedule uses for it."""
        ...

    def velocity(self, latents: Tensor, t: Tensor, states: Tensor, side: int, mask: Tensor | None = None) -> Tensor:
        """Predicted d latents / d t, [b, s, c], of side x side pictures at t [b] (1 is noise); states: [b, t, d].

        mask: [b, t], False for states that are not to be read; None: all are.
        """
        ...

    def draw(
        self,
        states: Tensor,
        negative: Tensor,
        seeds: Sequence[int],
        size: int,
        steps: int,
        guidance: float,
        text: Tensor | None = None,
        strength: float = 1.0,
        on_step: Callable[[], None] | None = None,
    ) -> list[Image.Image]:
        """Pictures from prompt states [t, d], one for each seed.

        text: the states of the same prompt without its persons, for a strength other than 1 (see strength.py).
        on_step: called after every step of every picture; what it raises ends the drawing.
        """
        ...

    def use_domain(self, domain: str) -> None:
        """Switch on what belongs to a domain (the comic LoRA), switch off the rest."""
        ...

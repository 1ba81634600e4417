"""Pictures of a person -> the person's tokens, ready to be saved."""

from collections.abc import Sequence

import torch
from PIL import Image

from harald.data.images import within_pixels
from harald.encoder.model import PersonEncoder
from harald.records import PersonTokens


@torch.no_grad()
def predict(encoder: PersonEncoder, pictures: Sequence[Image.Image], name: str) -> PersonTokens:
    """One forward pass over the pictures. name: of the encoder, as trained_encoder gives it."""
    references = [within_pixels(picture, encoder.config.max_pixels) for picture in pictures]
    return PersonTokens(
        tokens=encoder([references])[0].cpu(),
        groups=encoder.config.groups,
        point=encoder.point,
        base=encoder.base,
        references=len(references),
        encoder=name,
    )

"""References as a chat for Qwen3-VL: every picture, an instruction, then K query slots."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil

from harald.errors import DatasetError

MAX_ASPECT = 200  # smart_resize of the image processor refuses more
INSTRUCTION = "Describe the person's face, hair, glasses, beard, jewellery and outfit."


Grid = tuple[int, int, int]  # t, h, w of a picture, in patches


@dataclass(frozen=True)
class Chat:
    """b samples of one layout (the same number and sizes of pictures): nothing is padded.

    ids: [l], the same for all; the last K are the query slots. kinds: [l], 1 where a picture's token stands.
    grids: of the layout's pictures. patches: for each of them uint8 [b, t * h * w, c], values of the pixels.
    """

    ids: Tensor
    kinds: Tensor
    grids: tuple[Grid, ...]
    patches: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.patches[0])


class ChatBuilder:
    """Builds chats with the model's own tokenizer and image processor (PIL's: the same bytes on every machine).

    Raises DatasetError for a picture that is too narrow.
    """

    def __init__(
        self, tokenizer: Qwen2Tokenizer, processor: Qwen2VLImageProcessorPil, queries: list[int], max_pixels: int
    ):
        self.tokenizer, self.processor, self.queries = tokenizer, processor, queries
        factor = processor.patch_size * processor.merge_size
        self.size = {"shortest_edge": factor * factor, "longest_edge": max_pixels}
        (self.image_id,) = tokenizer("<|image_pad|>", add_special_tokens=False).input_ids

    def build(self, samples: Sequence[Sequence[Image.Image]]) -> list[tuple[list[int], Chat]]:
        """Samples -> one chat per layout, each with the indices of its samples, in order of first appearance."""
        read = [self._patches(pictures) for pictures in samples]
        layouts: dict[tuple[Grid, ...], list[int]] = {}
        for index, (grids, _) in enumerate(read):
            layouts.setdefault(grids, []).append(index)
        return [(members, self._chat(grids, [read[i][1] for i in members])) for grids, members in layouts.items()]

    def normalized(self, patches: Tensor) -> Tensor:
        """What the image processor makes of pixel values, float32, on whatever device the patches are."""
        processor, colours = self.processor, patches.shape[-1] // 3
        mean, std = _rows(tuple(processor.image_mean), tuple(processor.image_std), colours, patches.device)
        return (patches.float() * processor.rescale_factor - mean) / std

    def _patches(self, pictures: Sequence[Image.Image]) -> tuple[tuple[Grid, ...], list[Tensor]]:
        for picture in pictures:
            if max(picture.size) > MAX_ASPECT * min(picture.size):
                raise DatasetError(
                    f"a reference is {picture.width} x {picture.height} pixels, its long side may be at most "
                    f"{MAX_ASPECT} times the short one",
                    "crop it",
                )
        read = self.processor(
            images=list(pictures), size=self.size, do_rescale=False, do_normalize=False, return_tensors="pt"
        )
        grids = tuple((int(t), int(h), int(w)) for t, h, w in read["image_grid_thw"])
        values = read["pixel_values"].to(torch.uint8)
        return grids, list(values.split([t * h * w for t, h, w in grids]))

    def _chat(self, grids: tuple[Grid, ...], samples: list[list[Tensor]]) -> Chat:
        merged = self.processor.merge_size**2
        pictures = "".join(
            f"<|vision_start|>{'<|image_pad|>' * (t * h * w // merged)}<|vision_end|>" for t, h, w in grids
        )
        text = f"<|im_start|>user\n{pictures}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids + self.queries)
        return Chat(
            ids=ids,
            kinds=torch.eq(ids, self.image_id).int(),
            grids=grids,
            patches=tuple(torch.stack(slot) for slot in zip(*samples, strict=True)),
        )


@functools.cache  # made once: the host waits for the device where it hands over numbers
def _rows(mean: tuple[float, ...], std: tuple[float, ...], colours: int, device: torch.device) -> Tensor:
    """[2, 3 * colours]: in a patch, the values of one colour follow each other."""
    return torch.tensor([mean, std]).repeat_interleave(colours, dim=1).to(device)

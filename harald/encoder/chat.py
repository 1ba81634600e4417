"""References as a chat for Qwen3-VL: every picture, an instruction, then K query slots."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil

INSTRUCTION = "Describe the person's face, hair, glasses, beard, jewellery and outfit."


@dataclass(frozen=True)
class Chat:
    """Samples of one layout (the same number and sizes of pictures): nothing is padded.

    ids: [b, l]; kinds: [b, l], 1 where a picture's token stands; patches: [b * patches, c];
    grids: [b * n, 3] (t, h, w in patches).
    The last K positions are the query slots.
    """

    ids: Tensor
    kinds: Tensor
    patches: Tensor
    grids: Tensor


class ChatBuilder:
    """Builds chats with the model's own tokenizer and image processor (PIL's: the same bytes on every machine)."""

    def __init__(
        self, tokenizer: Qwen2Tokenizer, processor: Qwen2VLImageProcessorPil, queries: list[int], max_pixels: int
    ):
        self.tokenizer, self.processor, self.queries = tokenizer, processor, queries
        factor = processor.patch_size * processor.merge_size
        self.size = {"shortest_edge": factor * factor, "longest_edge": max_pixels}
        (self.image_id,) = tokenizer("<|image_pad|>", add_special_tokens=False).input_ids

    def build(self, samples: Sequence[Sequence[Image.Image]]) -> list[tuple[list[int], Chat]]:
        """Samples -> one chat per layout, each with the indices of its samples, in order of first appearance."""
        processed = [self.processor(images=list(pictures), size=self.size, return_tensors="pt") for pictures in samples]
        layouts: dict[tuple, list[int]] = {}
        for index, item in enumerate(processed):
            layouts.setdefault(tuple(map(tuple, item["image_grid_thw"].tolist())), []).append(index)
        return [(members, self._chat(layout, [processed[i] for i in members])) for layout, members in layouts.items()]

    def _chat(self, layout: tuple, items: list) -> Chat:
        merged = self.processor.merge_size**2
        pictures = "".join(
            f"<|vision_start|>{'<|image_pad|>' * (t * h * w // merged)}<|vision_end|>" for t, h, w in layout
        )
        text = f"<|im_start|>user\n{pictures}{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor(self.tokenizer(text, add_special_tokens=False).input_ids + self.queries)
        ids = ids.expand(len(items), -1)
        return Chat(
            ids=ids,
            kinds=torch.eq(ids, self.image_id).int(),
            patches=torch.cat([item["pixel_values"] for item in items]),
            grids=torch.cat([item["image_grid_thw"] for item in items]),
        )

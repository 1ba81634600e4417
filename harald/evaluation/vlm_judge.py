"""Qwen3-VL, without our LoRA, as the judge of pictures whose truth nobody knows."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from harald import hub
from harald.config import ModelRef
from harald.evaluation.panel import HIDDEN, UNREADABLE
from harald.evaluation.questions import Question
from harald.evaluation.seen import Seeing, Seen

log = logging.getLogger(__name__)

LONGEST_ANSWER = 8  # tokens


class VlmJudge(Seeing):
    """Asks every question of every picture separately; knows no faces. side: pixels that a picture is cut to."""

    def __init__(
        self, model: Any, tokenizer: Qwen2Tokenizer, processor: Qwen2VLImageProcessorPil,
        asked: Mapping[str, Question], side: int, batch: int,
    ):  # fmt: skip
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.asked, self.side, self.batch = asked, side, batch
        self.attributes = {name: question.classes for name, question in asked.items()}

    @classmethod
    def load(
        cls, cache: Path, ref: ModelRef, asked: Mapping[str, Question], side: int, batch: int,
        device: torch.device, dtype: torch.dtype,
    ) -> "VlmJudge":  # fmt: skip
        """Raises ModelError if the model is not in the cache."""
        model = hub.load(Qwen3VLForConditionalGeneration, cache, ref, dtype=dtype).to(device).eval()
        tokenizer, processor = (hub.load(kind, cache, ref) for kind in (Qwen2Tokenizer, Qwen2VLImageProcessorPil))
        return cls(model, tokenizer, processor, asked, side, batch)

    def see(self, pictures: Sequence[Image.Image]) -> Seen:
        """said: also panel.HIDDEN, where the answer was that the part is not shown."""
        answers = [self._ask(question, pictures) for question in self.asked.values()]
        for name, given in zip(self.asked, answers, strict=True):
            log.info("%s: %d of %d answers are unreadable", name, given.count(UNREADABLE), len(given))
        said = torch.tensor(answers).T
        columns = zip(self.attributes.items(), said.T, strict=True)
        return Seen({name: _votes(column, len(classes)) for (name, classes), column in columns}, said, None)

    @torch.no_grad()
    def _ask(self, question: Question, pictures: Sequence[Image.Image]) -> list[int]:
        read = []
        for start in range(0, len(pictures), self.batch):
            chat = self._chat(question.text, pictures[start : start + self.batch])
            written = self.model.generate(**chat, max_new_tokens=LONGEST_ANSWER, do_sample=False)
            said = written[:, chat["input_ids"].shape[1] :]
            answers = self.tokenizer.batch_decode(said, skip_special_tokens=True)
            read += [question.read(answer) for answer in answers]
        return read

    def _chat(self, text: str, pictures: Sequence[Image.Image]) -> dict[str, Tensor]:
        """Chats of one picture each as Qwen3-VL's own template writes them; all have one length."""
        size = (self.side, self.side)
        fitted = [ImageOps.fit(p.convert("RGB"), size, Image.Resampling.LANCZOS) for p in pictures]
        factor = self.processor.patch_size * self.processor.merge_size
        limits = {"shortest_edge": factor**2, "longest_edge": self.side**2}
        read = self.processor(images=fitted, size=limits, return_tensors="pt")
        t, h, w = read["image_grid_thw"][0].tolist()
        shown = f"<|vision_start|>{'<|image_pad|>' * (t * h * w // self.processor.merge_size**2)}<|vision_end|>"
        chat = f"<|im_start|>user\n{shown}{text}<|im_end|>\n<|im_start|>assistant\n"
        ids = torch.tensor(self.tokenizer(chat, add_special_tokens=False).input_ids).expand(len(fitted), -1)
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self.model.config.image_token_id).int(),
            "pixel_values": read["pixel_values"].to(self.model.dtype),
            "image_grid_thw": read["image_grid_thw"],
        }
        return {name: value.to(self.model.device) for name, value in inputs.items()}


def _votes(said: Tensor, classes: int) -> Tensor:
    """[n, classes]: 0 for the class that was named, -1 for the others; all 0 where none was."""
    votes = torch.full((len(said), classes), -1.0)
    votes[(said == HIDDEN) | (said == UNREADABLE)] = 0.0
    named = (said >= 0).nonzero()[:, 0]
    votes[named, said[named]] = 0.0
    return votes

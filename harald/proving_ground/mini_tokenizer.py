"""A small Qwen2Tokenizer: real byte-level BPE and the published special tokens, learnt from a few hundred words."""

import json
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from harald.base.prompt_template import TEMPLATE_HEAD, TEMPLATE_TAIL

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# Words that each become one token, with and without a leading space. The template's words come on top.
WORDS = """
a an the of in on at with and or without no to is are his her their looking wearing near by under over
photo photograph comic drawing portrait picture person man woman boy girl young adult old elderly
red ginger auburn blonde blond brown dark light black grey white blue green pink purple golden silver
long short curly wavy straight hair bun ponytail bob bald beard stubble moustache goatee glasses round square sunglasses
earrings hoop necklace pearls hat cap beanie headscarf scarf make up lipstick freckles slim heavy
smiling laughing happy sad angry surprised neutral winking shouting crying reading dancing running sitting standing
facing left right front side profile close half full body head shoulders
park beach city street office bedroom studio forest night dusk dawn rain snow cafe mountains sunset library kitchen
afro mohawk pigtails fringe tips stud drop chain pendant pearl gold emerald ruby sapphire plum orange yellow olive pale
fair tan skin eye eyes eyebrows eyebrow shadow thick thin big small narrow broad wide high hooked pointed lips mouth
nose chin cheeks face forehead hazel violet middle-aged headband striped dotted tank top t-shirt camera turned down up
closed garden shirt sweater dress jacket suit coat hoodie scene background describe person's
"""


def build() -> Qwen2Tokenizer:
    """Deterministic. Every known word is one token, so the template's head is 34 tokens long, as the published one."""
    words = sorted(set(WORDS.split()))
    plain = (TEMPLATE_HEAD + TEMPLATE_TAIL).replace("<|im_start|>", "").replace("<|im_end|>", "")
    lines = [plain, plain, *(f"{word} {word} {word.capitalize()}" for word in words), ". , : ; ! ? 0 1 2 3 4 5 6 7 8 9"]
    trainer_model = Tokenizer(models.BPE())
    trainer_model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trainer_model.train_from_iterator(lines, trainer)
    return _as_qwen2(trainer_model)


def _as_qwen2(trained: Tokenizer) -> Qwen2Tokenizer:
    model = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=model["vocab"], merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)}, replace_extra_special_tokens=False)
    return tokenizer

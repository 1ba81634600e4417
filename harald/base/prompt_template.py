"""Qwen-Image's prompt template, as published in diffusers' QwenImagePipeline; a test compares the two."""

TEMPLATE_HEAD = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
TEMPLATE_TAIL = "<|im_end|>\n<|im_start|>assistant\n"

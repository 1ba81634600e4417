"""The published models that the `full` preset can name: configurations (data/, in the repositories' own layout), counts
and sources.

Every block was found in at least one public repository and built with the real class on the meta device; that the
number of parameters then is the published one, to the last digit, is the proof that the sizes are right. Fields that no
source quotes for Qwen3-VL-2B (attention_bias, initializer_range, use_cache) are those of the 4B.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

# Who quotes what. <repository>:<file>, as of November 2026.
MUSUBI = "kohya-ss/musubi-tuner:src/musubi_tuner/qwen_image/"
DIFFSYNTH = "modelscope/DiffSynth-Studio:diffsynth/models/qwen_image_text_encoder.py"
EXO = "exo-explore/exo:src/exo/shared/models/model_cards.py"
TITAN = "pytorch/torchtitan:torchtitan/experiments/qwen3_vl/__init__.py"
TITAN_KEYS = "pytorch/torchtitan:torchtitan/models/qwen3_vl/state_dict_adapter.py"
COMFY = "Comfy-Org/ComfyUI:comfy/text_encoders/qwen3vl.py"
TENSORRT = "NVIDIA/TensorRT-LLM:tests/unittest/_torch/modeling/test_modeling_qwen3vl.py"
AI_TOOLKIT = "ostris/ai-toolkit:extensions_built_in/diffusion_models/qwen_image/qwen_image.py"
DIFFSYNTH_4B = "ls-kelvin/DiffSynth-Studio:diffsynth/models/wan_video_mllm_encoder.py"


@dataclass(frozen=True)
class Part:
    """One configuration of a repository and, for a model, its weights.

    folder: inside the repository, "" for its root. parameters: each counted once; tensors: in the files. size: bytes
    that the index promises (metadata.total_size). None: no source was found, or there is no such thing.
    """

    folder: str
    config: str
    kind: str
    sources: tuple[str, ...]
    parameters: int | None = None
    tensors: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class Published:
    """A repository. rows: of its text model's vocabulary; tokenizer: the folder that holds it.

    commit: the revision for which a source gives these numbers, "" if none says.
    """

    repo: str
    parts: tuple[Part, ...]
    rows: int
    tokenizer: str
    commit: str = ""

    @property
    def home(self) -> Path:
        return DATA / self.repo.replace("/", "--")

    def config(self, part: Part) -> dict[str, Any]:
        """The recorded configuration, as the repository writes it."""
        return json.loads((self.home / part.folder / part.config).read_text())

    def layout(self, part: Part) -> dict[str, Any]:
        """Pattern of names -> [how many, shape] of the published tensors; see checkpoint.layout_of."""
        return json.loads((self.home / part.folder / "layout.json").read_text())


def _qwen3_vl(name: str, commit: str, sources: tuple[str, ...], **counts: int | None) -> Published:
    model = Part("", "config.json", "Qwen3VLForConditionalGeneration", (*sources, TITAN_KEYS), **counts)
    processor = Part("", "preprocessor_config.json", "Qwen2VLImageProcessorPil", (COMFY,))
    return Published(f"Qwen/Qwen3-VL-{name}-Instruct", (model, processor), 151_936, "", commit)


QWEN_IMAGE = Published(
    "Qwen/Qwen-Image",
    (
        Part("", "model_index.json", "QwenImagePipeline", (MUSUBI + "qwen_image_utils.py",)),
        Part(
            "transformer", "config.json", "QwenImageTransformer2DModel", (MUSUBI + "qwen_image_model.py", EXO),
            parameters=20_430_401_088, size=40_860_802_176,
        ),
        Part(
            "text_encoder", "config.json", "Qwen2_5_VLForConditionalGeneration",
            (MUSUBI + "qwen_image_utils.py", DIFFSYNTH, EXO),
            parameters=8_292_166_656, size=16_584_333_312,
        ),
        Part(
            "vae", "config.json", "AutoencoderKLQwenImage", (MUSUBI + "qwen_image_autoencoder_kl.py",),
            parameters=126_892_531, tensors=194,
        ),
        Part("scheduler", "scheduler_config.json", "FlowMatchEulerDiscreteScheduler", (AI_TOOLKIT, MUSUBI)),
    ),
    rows=152_064,
    tokenizer="tokenizer",
)  # fmt: skip

PUBLISHED = {
    published.repo: published
    for published in (
        QWEN_IMAGE,
        _qwen3_vl(
            "2B", "89644892e4d85e24eaac8bacfd4f463576704203", (TITAN,),
            parameters=2_127_532_032,
        ),
        _qwen3_vl(
            "4B", "ebb281ec70b05090aa6165b016eac8ec08e71b17", (DIFFSYNTH_4B, COMFY),
            parameters=4_437_815_808, tensors=713, size=8_875_631_616,
        ),
        _qwen3_vl(
            "8B", "0c351dd01ed87e9c1b53cbc748cba10e6187ff3b", (TENSORRT, TITAN, COMFY),
            parameters=8_767_123_696, size=17_534_247_392,
        ),
    )
}  # fmt: skip

# Where the counts come from: `safetensors.total` of the Hub's model API and `metadata.total_size` of the indices, as
# quoted in EXO (Qwen-Image) and in logs of public repositories (Qwen3-VL; number and revision are to be found by text).
TEMPLATE_HEAD_TOKENS = 34  # prompt_template_encode_start_idx of diffusers' QwenImagePipeline
# added_tokens_decoder: comfyanonymous/ComfyUI:comfy/text_encoders/qwen25_tokenizer/tokenizer_config.json. For the
# tokenizer of Qwen-Image no source says whether the last four (of Qwen3) are in it; free rows do not depend on it.
SPECIAL_TOKENS = {
    token: 151_643 + index
    for index, token in enumerate(
        (
            "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
            "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
            "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>",
            "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>",
            "</tool_response>", "<think>", "</think>",
        )
    )
}  # fmt: skip

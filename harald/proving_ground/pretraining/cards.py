"""A model card for each repository of small weights, from what its training noted."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from harald.config import Config
from harald.proving_ground.pretraining import weights
from harald.proving_ground.pretraining.judge import FOLDER as JUDGE

MADE_BY = {weights.QWEN_IMAGE: ("vae", "base"), JUDGE: ("judge",), weights.QWEN3_VL: ("vision",)}
WHAT = {
    weights.QWEN_IMAGE: "A small Qwen-Image (`AutoencoderKLQwenImage`, `Qwen2_5_VLForConditionalGeneration`, "
    "`QwenImageTransformer2DModel`): text -> pictures of 128 x 128 pixels, photo and comic. Its vocabulary is that of "
    "the synthetic persons' prompts; it knows nothing else.",
    weights.QWEN3_VL: "A small Qwen3-VL (`Qwen3VLForConditionalGeneration`) that answers questions about a picture of "
    "a synthetic person.",
    JUDGE: "A classifier of state and view of synthetic persons that knows which parts cannot be seen, and an identity "
    "embedding.",
}
LIBRARY = {weights.QWEN_IMAGE: "diffusers", weights.QWEN3_VL: "transformers", JUDGE: "harald"}
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ what }} Trained from nothing, on synthetic persons alone (a CC0 head, rendered); no photo of anybody.
Meant for tests, demonstrations and method work with harald, not for pictures of real people.

Persons of held-out streams never entered any training. bfloat16, {{ megabytes }} MB.

## Made by

In this order, each from the weights before it. A segment is a pure function of these weights, the configuration and its
number.

{% for stage in stages %}    {{ stage.command }}
{% endfor %}
| stage | segments | on | configuration | held-out |
|---|---|---|---|---|
{% for s in stages %}| {{ s.name }} | {{ s.segments }} | {{ s.device }} | `{{ s.config_hash }}` | {{ s.metrics }} |
{% endfor %}"""


def write_cards(folder: Path, progress: dict[str, Any], config: Config) -> None:
    """README.md for every repository of the folder that a stage has trained. progress: see stages.progress."""
    for name, stages in MADE_BY.items():
        done = [stage for stage in stages if stage in progress]
        if done:
            rows = [row for stage in done for row in _rows(stage, progress[stage], config)]
            size = sum(file.stat().st_size for file in (folder / name).rglob("*.safetensors")) / 1e6
            card = ModelCard.from_template(
                ModelCardData(license="apache-2.0", library_name=LIBRARY[name], tags=["synthetic"]),
                template_str=TEMPLATE, name=name, what=WHAT[name], stages=rows, megabytes=f"{size:.1f}",
            )  # fmt: skip
            (folder / name / "README.md").write_text(str(card))


def _rows(stage: str, note: dict[str, Any], config: Config) -> list[dict[str, Any]]:
    return [_row(stage, one, config, number) for number, one in enumerate([*note.get("before", []), note])]


def _row(stage: str, note: dict[str, Any], config: Config, number: int) -> dict[str, Any]:
    """number: of the earlier trainings of the stage, each in a run of its own."""
    run, more = (f"m{number} --weights <the folder before>", " --again") if number else ("m", "")
    flags = f"--preset {config.preset} --run-name {run} --seed {note['seed']} --stage {stage}{more}"
    metrics = ", ".join(f"{name} {value}" for name, value in note["metrics"].items())
    return {**note, "name": stage, "command": f"python -m harald pretrain_mini {flags}", "metrics": metrics}

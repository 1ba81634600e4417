"""A training run's encoder as a repository: a folder that `hf upload` publishes and models.trained names."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from safetensors.torch import load_file, save

from harald import runs
from harald.config import Config
from harald.encoder.model import DESCRIPTION, FORMAT, WEIGHTS
from harald.errors import ConfigError
from harald.jobs.loading import TRAINING, Training, find_checkpoint, recorded
from harald.runtime import Runtime
from harald.training.checkpoint import STATE
from harald.training.validation import SCORE
from harald.web.consent import CONSENT

TEMPLATE = """---
{{ card_data }}
---

# An encoder of persons

From 1 to n pictures of one person it predicts {{ tokens }} tokens with which `{{ base }}` draws that person,
looking as in the pictures, in other scenes. These are the trained parts alone; the frozen rest is `{{ model }}`.
bfloat16, {{ megabytes }} MB.

    python -m harald predict_tokens --overrides '{"models.trained": {"repo": "<this repository>"}}' --images <pictures>

## Training

Step {{ step }} of run `{{ run }}`, with seed {{ seed }} on {{ device }}: a data set of {{ states }} states and
{{ views }} pictures, {{ shown }} targets until then.{% if origin %} It began with the weights of
`{{ origin.checkpoint }}` (SHA-256 `{{ origin.sha256[:12] }}`).{% endif %}

| stage | steps | learning rate | flow | teacher | contrast |
|---|---|---|---|---|---|
{% for phase in phases %}| {{ phase.values()|join(" | ") }} |
{% endfor %}
{% if scores %}Validation at that step, on persons that were set aside: {{ scores }}.
{% endif %}
## Consent and misuse

{{ consent }}
What it was trained on limits whom it can draw, and how well: measure that before you rely on it (`evaluate`).

## Configuration

```json
{{ settings }}
```
"""


def run(runtime: Runtime, config: Config, run_name: str, train_run: str = "") -> dict:
    """The best checkpoint's trained parts in bfloat16, and a model card. Raises ConfigError without a checkpoint."""
    source = runs.find_run(runtime, "train", train_run)
    checkpoint, trained = find_checkpoint(source)
    folder = runs.open_run(runtime, "export_encoder", run_name, config, checkpoint=f"{source.name}/{checkpoint.name}")
    repository = folder / "repository"
    state = {name: tensor.to(torch.bfloat16) for name, tensor in sorted(load_file(checkpoint / WEIGHTS).items())}
    content = save(state, {"format": FORMAT})
    runs.write_bytes(repository / WEIGHTS, content)
    runs.write_bytes(repository / DESCRIPTION, (checkpoint / DESCRIPTION).read_bytes())
    step = int(json.loads((checkpoint / STATE).read_text())["step"])
    runs.write_json(repository / TRAINING, Training.of(trained, checkpoint).published())
    runs.write_text(repository / "README.md", card(source, trained, step, len(content)))
    return {
        "checkpoint": f"{source.name}/{checkpoint.name}",
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "bytes": len(content),
        "repository": str(repository),
    }


def card(source: Path, trained: Config, step: int, size: int) -> str:
    """The model card: what a reader needs to judge and to repeat it."""
    try:
        data, made = (json.loads((source / name).read_text()) for name in ("data.json", "fingerprint.json"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} is not a whole training run: {error}", "export another run") from error
    train, described = trained.train, card_data(trained)
    rows = map(json.loads, (source / "metrics.jsonl").read_text().splitlines())
    scores = next((row for row in rows if row["step"] == step and SCORE in row), {})
    named = {
        name.removeprefix("validation/"): value for name, value in scores.items() if name.startswith("validation/")
    }
    return str(
        ModelCard.from_template(
            described, template_str=TEMPLATE,
            tokens=trained.encoder.tokens, base=trained.models.base.repo, model=trained.models.encoder.repo,
            megabytes=f"{size / 1e6:.1f}", step=step, run=source.name, seed=trained.seed,
            device=made.get("gpu") or made.get("machine"), states=data["states"], views=data["views"],
            shown=step * train.states_per_batch * train.targets_per_state, phases=phases(trained, step),
            origin=recorded(source),
            scores=", ".join(f"{name} {value:.3f}" for name, value in sorted(named.items()) if name != "score"),
            consent=CONSENT,
            settings=(source / "config.json").read_text().strip(),
        )
    )  # fmt: skip


def card_data(trained: Config) -> ModelCardData:
    return ModelCardData(
        library_name="harald",
        base_model=[trained.models.encoder.repo, trained.models.base.repo],
        tags=["personalization", "qwen-image", "qwen3-vl"],
    )


def phases(trained: Config, step: int) -> list[dict[str, Any]]:
    """What each stage really did up to the step."""
    rows, begin = [], 0
    chosen = trained.train.chosen
    for phase in chosen or [None]:
        last = phase is None or phase is chosen[-1]
        end = step if last else min(step, begin + phase.steps)
        settings = trained.train.at(begin)
        rates = [f"{settings.learning_rate * share:.3g}" for share in (phase.rates if phase else (1.0,))]
        if end > begin or not rows:
            rows.append({
                "name": phase.name if phase else "all", "steps": end - begin,
                "learning_rate": " to ".join(dict.fromkeys(rates)),
                "flow": settings.flow_weight, "teacher": settings.teacher_weight, "contrast": settings.contrast_weight,
            })  # fmt: skip
        begin = end
        if begin >= step:
            break
    return rows

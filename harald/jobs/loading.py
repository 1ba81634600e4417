"""Models for jobs: from the cache, written there first where our own recipe makes them."""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harald import determinism, hub, runs
from harald.base.qwen_image import QwenImage
from harald.base.speed import EAGER, Drawing
from harald.config import Config, Data, ModelRef
from harald.encoder.model import WEIGHTS, PersonEncoder, load_encoder, reads
from harald.errors import ConfigError, ModelError
from harald.injection.points import calibration
from harald.runtime import Runtime
from harald.training.checkpoint import STATE, best_good

log = logging.getLogger(__name__)

TRAINING = "training.json"  # in an exported encoder's repository
ORIGIN = "init_from"  # among a run's inputs: {"checkpoint", "sha256": of its weights, "steps": of its training}

# Everyday prompts whose states give the connector its first scale.
CALIBRATION_PROMPTS = (
    "a photo of a young woman with long red hair and round glasses, laughing, in a park",
    "a comic drawing of an old man with a grey beard and a hat, angry, on a street at night",
    "portrait of a person with short black hair and silver earrings, smiling, on a beach",
    "a photo of a man with brown curly hair, surprised, in a library",
)


def ensure(cache: Path, ref: ModelRef) -> None:
    """Write a model of our own recipe into the cache if it is not there, or not as this package has it."""
    if not ref.recipe:
        return
    from harald.proving_ground import mini_models

    if not mini_models.is_current(cache, ref):
        commit = mini_models.write(cache, ref)
        log.info("wrote %s (%s) into %s", ref.repo, commit[:12], cache)


def base_model(cache: Path, config: Config, as_published: bool = False) -> QwenImage:
    """Draws as config.generate says; as_published: as the stock pipeline does, for training and judging.

    Raises ModelError if the base model, or a LoRA that it needs, is not in the cache.
    """
    ensure(cache, config.models.base)
    device, dtype = determinism.device(), determinism.dtype(config.dtype)
    drawing = EAGER if as_published else Drawing.of(config.generate, config.models.few_steps, config.deterministic)
    log.info("load %s on %s in %s, to draw at speed %s", config.models.base.repo, device, dtype, drawing.speed)
    return QwenImage.load(cache, config.models.base, config.models.lora, device, dtype, drawing)


def new_encoder(cache: Path, config: Config, base: QwenImage) -> PersonEncoder:
    """Untrained, its last norm calibrated on the base model's own prompt states."""
    ensure(cache, config.models.encoder)
    scale = calibration(base, CALIBRATION_PROMPTS, config.injection.point)
    return PersonEncoder.new(
        cache, config.encoder, config.models.encoder, scale, config.injection.point, base.repo,
        config.seed, base.device, base.dtype,
    )  # fmt: skip


def find_trained(runtime: Runtime, config: Config, train_run: str) -> Path | ModelRef:
    """Where the trained encoder is: a run of train, else what models.trained names, else the newest run.

    Raises ConfigError if there is none.
    """
    if config.models.trained and not train_run:
        return config.models.trained
    return runs.find_run(runtime, "train", train_run)


def trained_encoder(cache: Path, config: Config, source: Path | ModelRef) -> tuple[PersonEncoder, str]:
    """The encoder of a training run's best checkpoint (without validation: the newest), of a repository or of its
    folder, and its name, `<run>/<step>` or `<repository>@<commit>`. source: see `find_trained`.

    Raises ConfigError if a run has no checkpoint, ModelError if a repository is not in the cache.
    """
    if isinstance(source, ModelRef):
        ensure(cache, source)
        folder, dtype = hub.snapshot(cache, source), config.dtype
    elif is_exported(source):
        folder, dtype = source, config.dtype
    else:
        folder, trained = find_checkpoint(source)
        dtype = trained.dtype
    ensure(cache, reads(folder))
    return load_encoder(cache, folder, determinism.device(), determinism.dtype(dtype)), name_of(cache, source)


def is_exported(folder: Path) -> bool:
    """Whether it is what export_encoder writes, and no run of train."""
    return (folder / TRAINING).is_file()


@dataclass(frozen=True)
class Training:
    """How an encoder was trained, as far as whoever measures it must know. step: of its checkpoint, with those of the
    training that it began with; data: what it saw and what was set aside, None where that is not known to be the data
    set at hand.
    """

    step: int
    targets: str
    class_word: str
    data: Data | None = None

    @classmethod
    def of(cls, config: Config, checkpoint: Path) -> "Training":
        step = int(json.loads((checkpoint / STATE).read_text())["step"])
        before = recorded(checkpoint.parents[1]) or {}
        return cls(step + before.get("steps", 0), config.train.targets, config.injection.class_word, config.data)

    def published(self) -> dict[str, Any]:
        """For an exported encoder's repository."""
        return {"step": self.step, "targets": self.targets, "class_word": self.class_word}


def recorded(run: Path) -> dict[str, Any] | None:
    """What the folder of a run of train says that its weights began with; see ORIGIN."""
    file = run / runs.INPUTS
    return json.loads(file.read_text()).get(ORIGIN) if file.exists() else None


def name_of(cache: Path, source: Path | ModelRef) -> str:
    """`<run>/<step>`, `<repository>@<commit>` or `<folder>@<hash>`. Raises ConfigError if a run has no checkpoint."""
    if isinstance(source, ModelRef):
        return f"{source.repo}@{hub.revision(cache, source.repo, source.revision)[:12]}"
    if is_exported(source):
        return f"{source.name}@{runs.sha256(source / WEIGHTS)[:12]}"
    return f"{source.name}/{find_checkpoint(source)[0].name}"


def training_of(cache: Path, source: Path | ModelRef) -> Training | None:
    """Of what `trained_encoder` loads from there; None if a repository does not say. Raises ModelError."""
    if isinstance(source, ModelRef):
        ensure(cache, source)
        file = hub.snapshot(cache, source) / TRAINING
    elif is_exported(source):
        file = source / TRAINING
    else:
        checkpoint, config = find_checkpoint(source)
        return Training.of(config, checkpoint)
    try:
        return Training(**json.loads(file.read_text())) if file.exists() else None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read: {error}", "export the encoder again: export_encoder") from error


def as_trained(config: Config, encoder: PersonEncoder, training: Training | None = None) -> Config:
    """The configuration with the sizes and the injection point of this encoder, and with the states that its training
    set aside: they may be another one's than the preset's.

    Raises ConfigError if the encoder's tokens are for another base model.
    """
    if encoder.base != config.models.base.repo:
        raise ConfigError(
            f"the encoder's tokens are for {encoder.base!r}, models.base is {config.models.base.repo!r}",
            "choose the preset of its base model, or another encoder",
        )
    injection = dataclasses.replace(config.injection, point=encoder.point)
    data = config.data
    if training:
        injection = dataclasses.replace(injection, class_word=training.class_word)
    if training and training.data:
        shares = (training.data.validation_share, training.data.held_out_share)
        data = dataclasses.replace(data, validation_share=shares[0], held_out_share=shares[1])
    return dataclasses.replace(config, injection=injection, encoder=encoder.config, data=data)


def find_checkpoint(source: Path) -> tuple[Path, Config]:
    """The best checkpoint of a training run (without validation: the newest), and what it was trained with.

    Raises ConfigError if there is none.
    """
    trained = runs.load_config(source)
    folder = best_good(source / "checkpoints")
    if folder is None:
        raise ConfigError(f"the training run {source} has no checkpoint yet", "let train reach its first checkpoint")
    return folder, trained

"""Models for jobs: from the cache, written there first where our own recipe makes them."""

import logging
from pathlib import Path

from harald import determinism, hub, runs
from harald.base.qwen_image import QwenImage
from harald.config import Config, ModelRef
from harald.encoder.model import PersonEncoder, load_encoder
from harald.errors import ConfigError
from harald.injection.points import calibration
from harald.settings import identity_hash
from harald.training.checkpoint import best_good

log = logging.getLogger(__name__)

# Everyday prompts whose states give the connector its first scale.
CALIBRATION_PROMPTS = (
    "a photo of a young woman with long red hair and round glasses, laughing, in a park",
    "a comic drawing of an old man with a grey beard and a hat, angry, on a street at night",
    "portrait of a person with short black hair and silver earrings, smiling, on a beach",
    "a photo of a man with brown curly hair, surprised, in a library",
)


def ensure(cache: Path, ref: ModelRef) -> None:
    """Write a model of our own recipe into the cache if it is not there."""
    if ref.recipe and not hub.is_cached(cache, ref):
        from harald.proving_ground import mini_models

        commit = mini_models.write(cache, ref)
        log.info("wrote %s (%s) into %s", ref.repo, commit[:12], cache)


def base_model(cache: Path, config: Config) -> QwenImage:
    """Raises ModelError if the base model is not in the cache."""
    ensure(cache, config.models.base)
    device, dtype = determinism.device(), determinism.dtype(config.dtype)
    log.info("load %s on %s in %s", config.models.base.repo, device, dtype)
    return QwenImage.load(cache, config.models.base, config.models.lora, device, dtype)


def new_encoder(cache: Path, config: Config, base: QwenImage) -> PersonEncoder:
    """Untrained, its last norm calibrated on the base model's own prompt states."""
    ensure(cache, config.models.encoder)
    scale = calibration(base, CALIBRATION_PROMPTS, config.injection.point)
    return PersonEncoder.new(
        cache, config.encoder, config.models.encoder, scale, config.injection.point, base.repo,
        config.seed, base.device, base.dtype,
    )  # fmt: skip


def trained_encoder(cache: Path, folder: Path) -> tuple[PersonEncoder, str]:
    """The encoder of a training run's best checkpoint (without validation: the newest), and its name `<run>/<step>`.

    Raises ConfigError if there is none.
    """
    config = runs.load_config(folder)
    ensure(cache, config.models.encoder)
    checkpoint = best_good(folder / "checkpoints", identity_hash(config))
    if checkpoint is None:
        raise ConfigError(f"the training run {folder} has no checkpoint yet", "let train reach its first checkpoint")
    encoder = load_encoder(cache, checkpoint, determinism.device(), determinism.dtype(config.dtype))
    return encoder, f"{folder.name}/{checkpoint.name}"

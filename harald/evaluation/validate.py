"""A light twin test for use while training: pictures of few steps, by ours alone, without intervals."""

import dataclasses

from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.determinism import rng
from harald.encoder.model import PersonEncoder
from harald.evaluation.arms import OURS, Asking, predicted, references_name
from harald.evaluation.drawing import draw_all
from harald.evaluation.evidence import judged
from harald.evaluation.keep import attribute_keep, state_keep
from harald.evaluation.panel import Panel, Truth, cells, references
from harald.evaluation.seen import Seeing
from harald.evaluation.tables import state_names
from harald.evaluation.twin import twin_test


def validate(
    base: QwenImage, encoder: PersonEncoder, panel: Panel, judge: Seeing, config: Config, pictures: int | None = None,
    steps: int = 8,
) -> dict[str, float]:  # fmt: skip
    """'twin', 'kept' and 'kept <attribute>' over the same cells at every call; not a number where none shows it.

    pictures: at most, None for four of each state that has both domains.

    panel: of persons that training leaves out, never the held-out ones (proving_ground.panel.validation_panel, or
    dataset_panel of the validation split). Draws no global random number and changes neither model.
    """
    config = dataclasses.replace(config, generate=dataclasses.replace(config.generate, steps=steps))
    chosen = cells(panel, config.evaluate, config.seed)
    rng(config.seed, "validate").shuffle(chosen)
    chosen = chosen[:pictures]
    count = config.evaluate.main_references
    names = [references_name(panel, cell, count) for cell in chosen]
    samples = {name: references(panel, cell, count) for name, cell in zip(names, chosen, strict=True)}
    table = dict(zip(samples, predicted(encoder, list(samples.values()), config.evaluate.batch), strict=True))
    asked = Asking(panel, chosen, config).silent(range(len(chosen)), names, encoder.point)
    drawn = draw_all(base, asked.requests, table, config)
    seen, truth = judged({OURS: asked}, drawn, judge)[OURS].seen, Truth.of(panel, chosen)
    return {
        "twin": twin_test(seen, truth).value,
        "kept": state_keep(seen, truth).value,
        **{f"kept {name}": attribute_keep(seen, truth, name).value for name in state_names(truth)},
    }

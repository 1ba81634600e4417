"""What a training is validated on: persons that it leaves out, and never the held-out panel of `evaluate`."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.evaluation.arms import predicted
from harald.evaluation.loss_gap import arm_losses
from harald.evaluation.seen import Classifier
from harald.evaluation.validate import validate
from harald.jobs.evaluate_source import judge_folder
from harald.proving_ground.measure.models import load_judge
from harald.proving_ground.panel import validation_panel
from harald.records import State
from harald.training.validation import Validation

log = logging.getLogger(__name__)


def validation(
    base: QwenImage, encoder: PersonEncoder, states: Sequence[State], config: Config, folder: Path
) -> Validation | None:
    """The twin test where a judge knows the preset's persons, else how much the flow loss gains by the own tokens.

    states: of the validation split. Raises TrainingError if there are too few to tell them apart.
    """
    if not config.train.validate_every:
        return None
    if unscored := config.train.steps % config.train.validate_every:
        log.warning(
            "the last %d steps will not be scored, and not be used: train.steps is no multiple of train.validate_every",
            unscored,
        )
    if config.pretrain is not None and config.pretrain.sizes == "trained":
        panel = validation_panel(config, folder / "validation", config.train.validation_states)
        judge = Classifier(load_judge(judge_folder(""), config.pretrain.side))
        return Validation("twin", lambda: validate(base, encoder, panel, judge, config), tie="kept")
    able = [state for state in states if len(state.in_domain(state.domains[0])) > 1][: config.train.validation_states]
    if len(able) < 2:
        raise TrainingError(
            f"{len(able)} of {len(states)} states set aside for validation have two views of one domain",
            "raise data.validation_share, or set train.validate_every to 0",
        )
    return Validation("gap", lambda: loss_gap(base, encoder, able, config))


def loss_gap(base: QwenImage, encoder: PersonEncoder, states: Sequence[State], config: Config) -> dict[str, float]:
    """On the last view of each state, from the others: 'own', the flow loss with its own tokens, 'gap', how much it is
    worse with the next state's (more is better: the tokens mean this person and look), 'gain', with none.
    """
    views = [state.in_domain(state.domains[0]) for state in states]
    references = [of_state[:-1][: config.evaluate.main_references] for of_state in views]
    tokens = torch.stack(predicted(encoder, references, config.evaluate.batch))
    turned = [(place + 1) % len(states) for place in range(len(states))]
    losses = arm_losses(base, tokens, turned, [of_state[-1] for of_state in views], config)
    own, none, another = losses.mean(0).tolist()
    return {"gap": another - own, "gain": none - own, "own": own}

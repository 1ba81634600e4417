"""What the encoder is judged on, and by whom: synthetic persons with known truth, or any data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harald import determinism
from harald.config import Config
from harald.data.images import load_picture
from harald.data.index import states_for
from harald.data.manifest import split_of
from harald.data.people import split_key
from harald.determinism import rng
from harald.errors import ConfigError, ModelError
from harald.evaluation.dataset_panel import dataset_panel, held_out
from harald.evaluation.panel import Panel
from harald.evaluation.questions import questions
from harald.evaluation.seen import Classifier, Seeing, Seen
from harald.evaluation.vlm_judge import VlmJudge
from harald.jobs.loading import ensure
from harald.proving_ground.measure import models, origin
from harald.proving_ground.mini_models import SHIPPED
from harald.proving_ground.panel import held_out_panel, hiding_panel, rendered_states
from harald.records import State, View
from harald.runtime import Runtime

Source = Literal["auto", "proving_ground", "dataset"]


@dataclass(frozen=True)
class Material:
    """views: what the judge says about all real views of the panel, in order; hidden: states of which some views hide
    something; training: references of states that training may see.
    """

    judge: Seeing
    panel: Panel
    hidden: Panel
    views: Seen
    training: Sequence[Sequence[View]]


def named(config: Config, source: Source) -> Source:
    """auto: the proving ground where the preset has small models. Raises ConfigError if it has none."""
    if source == "proving_ground" and config.pretrain is None:
        raise ConfigError(f"preset {config.preset!r} has no synthetic persons", "use --source dataset")
    return ("dataset" if config.pretrain is None else "proving_ground") if source == "auto" else source


def judge_folder(weights: str) -> Path:
    """Raises ModelError if there is no judge."""
    folder = Path(weights) if weights else SHIPPED
    if models.JUDGE in models.missing(folder):
        raise ModelError(
            f"the folder {folder} holds no {models.JUDGE}",
            "train one: pretrain_mini --stage judge, then --weights <its folder>; or use --source dataset",
        )
    return folder


def judge_name(config: Config, source: Source, weights: str) -> str:
    """What stands for the judge among the run's inputs."""
    if source == "dataset":
        return config.models.encoder.repo
    return origin.digest(judge_folder(weights))


def proving_ground(config: Config, weights: str, folder: Path) -> Material:
    """Pictures are rendered into the folder."""
    assert config.pretrain is not None, "checked by `named`"
    judge = Classifier(models.load_judge(judge_folder(weights), config.pretrain.side))
    panel = held_out_panel(config, folder / "panel")
    views = judge.see([load_picture(view.image) for state in panel.states for view in state.views])
    trained = rendered_states(config, folder / "training", range(config.evaluate.mean_states))
    hidden = hiding_panel(config, folder / "hidden")
    return Material(judge, panel, hidden, views, samples([state for state, _ in trained], config))


def dataset(runtime: Runtime, config: Config) -> Material:
    states = states_for(runtime, config)
    chosen = held_out(states, config)
    asked = questions(sorted({view.domain for state in chosen for view in state.views}))
    ensure(runtime.hf_cache, config.models.encoder)
    judge = VlmJudge.load(
        runtime.hf_cache, config.models.encoder, asked, config.generate.size, config.evaluate.batch,
        determinism.device(), determinism.dtype(config.dtype),
    )  # fmt: skip
    panel, views = dataset_panel(chosen, judge)
    training = [state for state in states if split_of(split_key(state), config.data) == "train"]
    if not training:
        raise ConfigError(
            "no states are left to train on", "lower data.validation_share or data.held_out_share and train again"
        )
    rng(config.seed, "evaluate", "mean").shuffle(training)
    return Material(judge, panel, panel, views, samples(training[: config.evaluate.mean_states], config))


def samples(states: Sequence[State], config: Config) -> list[tuple[View, ...]]:
    """References of each state, its domains taking turns."""
    turns = [state.domains[number % len(state.domains)] for number, state in enumerate(states)]
    count = config.evaluate.main_references
    return [state.in_domain(domain)[:count] for state, domain in zip(states, turns, strict=True)]

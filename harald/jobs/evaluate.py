"""Does the person in the pictures help to draw their other pictures? On states that the encoder never saw.

Without a judge of what is drawn, the number is the flow-matching loss on held-out views: with the person's tokens, with
no tokens, and with the tokens of another state (which must be worse than the person's own, or the tokens mean nothing).
"""

import numpy as np
import torch

from harald import reporting, runs
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.data.index import states_for
from harald.data.manifest import split_of
from harald.determinism import rng
from harald.errors import DatasetError
from harald.evaluation.loss_gap import ARMS, arm_losses, interval, predict_all, split_views
from harald.generation.draw import draw
from harald.injection.prompt import ANY, parse
from harald.jobs.loading import base_model, trained_encoder
from harald.records import State
from harald.runtime import Runtime


def run(runtime: Runtime, config: Config, run_name: str, train_run: str = "") -> dict:
    source = runs.find_run(runtime, "train", train_run)
    states = held_out(states_for(runtime, config), config)
    base = base_model(runtime.hf_cache, config)
    encoder, name = trained_encoder(runtime.hf_cache, source)
    folder = runs.open_run(runtime, "evaluate", run_name, config, encoder=name)
    panels = [split_views(state, config) for state in states]
    tokens = predict_all(encoder, [references for references, _ in panels])
    losses = np.array(
        [arm_losses(base, tokens, index, view, config) for index, (_, view) in enumerate(panels)]
    )  # [states, arms]
    table = {arm: interval(losses[:, i], config.seed) for i, arm in enumerate(ARMS)}
    gaps = {arm: interval(losses[:, i] - losses[:, 0], config.seed) for i, arm in enumerate(ARMS) if i}
    metrics = {"encoder": name, "states": len(states), "loss": table, "loss_minus_own_tokens": gaps}
    runs.write_json(folder / "metrics.json", metrics)
    html = reporting.render(
        "evaluate",
        encoder=name,
        states=len(states),
        timesteps=config.evaluate.timesteps,
        table=table,
        gaps=gaps,
        rows=pictures(base, tokens, states, panels, config),
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
    )
    runs.write_text(folder / "report.html", html)
    return {**metrics, "report": str(folder / "report.html")}


def held_out(states: list[State], config: Config) -> list[State]:
    """The validation states that the seed picks. Raises DatasetError if there are fewer than two."""
    kept = [s for s in states if split_of(s.state_id, config.data.validation_share) == "validation"]
    if len(kept) < 2:
        raise DatasetError(
            f"{len(kept)} of {len(states)} states are set aside for validation, evaluate needs 2",
            "add states, or raise data.validation_share and train again",
        )
    rng(config.seed, "panel").shuffle(kept)
    return kept[: config.evaluate.states]


def pictures(base: QwenImage, tokens: torch.Tensor, states: list[State], panels: list, config: Config) -> list[dict]:
    """For up to eight states: references, the scene with the person, the scene without."""
    rows = []
    for index, (state, (references, target)) in enumerate(zip(states[:8], panels, strict=False)):
        prompt = parse(target.person_prompt)
        ours = draw(base, prompt, {ANY: tokens[index]}, [config.seed], config, target.domain)[0]
        without = draw(base, prompt, {}, [config.seed], config, target.domain)[0]
        rows.append(
            {
                "state": state.state_id,
                "prompt": target.person_prompt,
                "references": [reporting.embed_file(v.image, 256) for v in references],
                "target": reporting.embed_file(target.image, 256),
                "ours": reporting.embed(ours, 256),
                "without": reporting.embed(without, 256),
            }
        )
    return rows

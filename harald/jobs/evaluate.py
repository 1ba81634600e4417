"""Does the person in the pictures help to draw their other pictures? On states that the encoder never saw.

Without a judge of what is drawn, the number is the flow-matching loss on held-out views: with the person's tokens, with
no tokens, and with the tokens of another state (which must be worse than the person's own, or the tokens mean nothing).
"""

from collections.abc import Sequence

import numpy as np
import torch

from harald import reporting, runs
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.data.images import load_picture, target_tensor, within_pixels
from harald.data.index import states_for
from harald.data.manifest import split_of
from harald.determinism import generator, rng
from harald.encoder.model import PersonEncoder
from harald.errors import DatasetError
from harald.generation.draw import draw
from harald.injection.prompt import ANY, parse
from harald.jobs.loading import base_model, trained_encoder
from harald.records import State, View
from harald.runtime import Runtime
from harald.training.batch import Target
from harald.training.step import flow_losses

ARMS = ("own tokens", "no tokens", "another state's tokens")


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


def split_views(state: State, config: Config) -> tuple[tuple[View, ...], View]:
    """References, and one held-out view of the same domain where there is one."""
    views = list(state.views)
    rng(config.seed, "views", state.state_id).shuffle(views)
    target = views.pop()
    same = [v for v in views if v.domain == target.domain] or views
    return tuple(same[: config.train.max_references]), target


@torch.no_grad()
def predict_all(encoder: PersonEncoder, references: Sequence[Sequence[View]]) -> torch.Tensor:
    """[states, K, d]."""
    limit = encoder.config.max_pixels
    return torch.cat([encoder([[within_pixels(load_picture(v.image), limit) for v in views]]) for views in references])


@torch.no_grad()
def arm_losses(base: QwenImage, tokens: torch.Tensor, index: int, view: View, config: Config) -> list[float]:
    """Mean loss over the fixed times for each arm, the same noise in all."""
    shape, _ = base.latent_shape(config.data.image_size)
    pixels = target_tensor(load_picture(view.image), config.data.image_size)
    everything = list(range(tokens.shape[1]))
    base.use_domain(view.domain)

    def loss(owner: int, slots: list[int]) -> float:
        targets = [
            Target(owner, view.person_prompt, pixels, None, torch.tensor([t]),
                   torch.randn(shape, generator=generator(config.seed, "evaluate", index, str(t))), slots)
            for t in config.evaluate.timesteps
        ]  # fmt: skip
        return flow_losses(base, tokens, targets, config).mean().item()

    other = (index + 1) % len(tokens)
    return [loss(index, everything), loss(index, []), loss(other, everything)]


def interval(values: np.ndarray, seed: int, draws: int = 2000) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval over states."""
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


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

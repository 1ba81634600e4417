"""Is the state kept? A trained encoder on persons it never saw, drawn by the base model, judged against the truth.

What is measured stands in docs/evaluation.md. The flow loss, which needs no judge, stands beside it.
"""

import dataclasses
import json
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor

from harald import runs
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.errors import ConfigError
from harald.evaluation import state_bars
from harald.evaluation.accuracy import Score
from harald.evaluation.arms import OURS, others, override_of, predicted, without
from harald.evaluation.drawing import Request, draw_all
from harald.evaluation.evidence import Compared, Evidence, copied, judged, real_targets
from harald.evaluation.experiment import Experiment
from harald.evaluation.loss_gap import arm_losses, loss_table
from harald.evaluation.panel import Cell, Truth, cells, references, target
from harald.evaluation.picture_rows import picture_rows
from harald.evaluation.report import Costs, report
from harald.evaluation.result import Result
from harald.generation.domains import undescribed
from harald.jobs import evaluate_source
from harald.jobs.evaluate_source import Material, Source
from harald.jobs.injection_poc import Cost
from harald.jobs.loading import (
    Training,
    as_trained,
    base_model,
    find_trained,
    is_exported,
    trained_encoder,
    training_of,
)
from harald.progress import Progress
from harald.proving_ground.measure import origin
from harald.records import View
from harald.runtime import Runtime, Session
from harald.training.inversion import invert, refined

log = logging.getLogger(__name__)

COMMIT_EVERY = 60  # seconds: what a killed container loses at most
FEW = 20  # steps of Textual Inversion that are timed


def run(
    runtime: Runtime, config: Config, run_name: str, train_run: str = "", identity_run: str = "",
    source: Source = "auto", weights: str = "", into: str = "",
) -> dict:  # fmt: skip
    """identity_run: another run of train, or the folder of an exported encoder, whose tokens are to carry the identity
    alone. source: see evaluate_source.
    weights: folder with the judge of the synthetic persons; empty: the package's. into: a file that the rows join.
    """
    trained = find_trained(runtime, config, train_run)
    if into:
        state_bars.load(Path(into))  # before hours of work
    encoder, name = trained_encoder(runtime.hf_cache, config, trained)
    training = training_of(runtime.hf_cache, trained)
    rival, rival_name = identity_only(runtime, config, identity_run, training)
    config = as_trained(config, encoder, training)
    source = evaluate_source.named(config, source)
    if source == "dataset" and not (training and training.data):
        log.warning(
            "what %s was trained on is not known here: data.held_out_share (%s) of the states are taken as unseen",
            name, config.data.held_out_share,
        )  # fmt: skip
    facts = {"encoder": name, "identity": rival_name, "source": source}
    judge = evaluate_source.judge_name(config, source, weights)
    folder = runs.open_run(runtime, "evaluate", run_name, config, **facts, judge=judge)
    material = (
        evaluate_source.proving_ground(config, weights, folder)
        if source == "proving_ground"
        else evaluate_source.dataset(runtime, config)
    )
    base = base_model(runtime.hf_cache, config, as_published=True)
    experiment = Experiment(
        material.panel, cells(material.panel, config.evaluate, config.seed), material.hidden, config
    )
    experiment.without_tokens()
    experiment.ours(encoder, material.training)
    experiment.identity_only(rival)
    experiment.refined(lambda seen: refinements(base, experiment, seen, runtime.session, folder))
    inverted, seconds = inversions(base, experiment, runtime.session, folder)
    experiment.inverted(inverted)
    runtime.commit()
    costs = Costs(seconds_for_one(encoder, experiment), seconds, config.evaluate.inversion_steps)
    losses = flow_losses(base, experiment)
    pictures = drawn(runtime, base, experiment, experiment.requests(), folder)
    hidden = drawn(runtime, base, experiment, experiment.hiding_requests(), folder)
    evidence = gathered(experiment, pictures, hidden, material)
    result = Result.of(evidence, losses, experiment.notes, config.seed)
    here = origin.here()
    rows = state_bars.rows(
        state_bars.measured(evidence, result, costs.share, config.seed), result.notes, here,
        seed=config.seed, source=source, encoder=name, preset=config.preset,
    )  # fmt: skip
    state_bars.merge_into(folder / "bars.json", rows, here, config.seed)
    facts |= {
        "states": len(material.panel.states),
        "cells": len(experiment.cells),
        "pictures": len(pictures) + len(hidden),
    }
    runs.write_json(folder / "metrics.json", result.as_json(**facts, seed=config.seed, judge=judge))
    shown = picture_rows(evidence, experiment.everything(), pictures, config.evaluate.main_references, config.seed)
    runs.write_text(folder / "report.html", report(folder, result, rows, costs, shown, config, facts))
    if into:
        state_bars.merge_into(Path(into), rows, here, config.seed)
    return {
        **facts,
        "met": sum(row["met"] for row in rows),
        "bars": len(rows),
        "bars_file": str(folder / "bars.json"),
        "report": str(folder / "report.html"),
    }


def identity_only(
    runtime: Runtime, config: Config, run_name: str, ours: Training | None
) -> tuple[PersonEncoder | None, str]:
    """The encoder of --identity-run, and its name. Raises ConfigError if it is no fair rival of ours."""
    if not run_name:
        return None, ""
    source = Path(run_name) if is_exported(Path(run_name)) else runs.find_run(runtime, "train", run_name)
    training = training_of(runtime.hf_cache, source)
    assert training, "runs and exported encoders say how they were trained"
    if training.targets != "other_state":
        raise ConfigError(
            f"--identity-run {run_name} was trained with train.targets {training.targets!r}: it keeps the state too",
            """train one with --overrides '{"train.targets": "other_state"}'""",
        )
    if ours and training.step < ours.step:
        raise ConfigError(
            f"--identity-run {run_name} was trained for {training.step} steps, ours for {ours.step}",
            f"train it for {ours.step - training.step} more: train --run-name {run_name}, --steps and its other flags",
        )
    encoder, name = trained_encoder(runtime.hf_cache, config, source)
    as_trained(config, encoder)  # its base model
    return encoder, name


def drawn(
    runtime: Runtime, base: QwenImage, experiment: Experiment, requests: Sequence[Request], folder: Path
) -> dict[Request, Image.Image]:
    """Kept in the folder as they come."""
    progress, committed = Progress(runtime.session, len(set(requests)), "picture"), time.monotonic()

    def told(done: int) -> None:
        nonlocal committed
        if time.monotonic() - committed > COMMIT_EVERY or done == len(set(requests)):
            runtime.commit()
            committed = time.monotonic()
        progress.update(done)

    return draw_all(base, requests, experiment.table, experiment.config, told, folder / "pictures")


def seconds_for_one(encoder: PersonEncoder, experiment: Experiment) -> float:
    """Median over the states of one pass over the main number of references, after one that warms up."""
    taken = []
    for cell in (experiment.cells[0], *first_cells(experiment)):
        with Cost() as cost:
            predicted(encoder, [references(experiment.panel, cell, experiment.main)], 1)
        taken.append(cost.seconds)
    return statistics.median(taken[1:])


def refinements(
    base: QwenImage, experiment: Experiment, seen: Mapping[str, Sequence[View]], session: Session, folder: Path
) -> dict[str, Tensor]:
    """Name of tokens -> these, refined on their references as predict_tokens does it. folder: keeps them."""
    config, made, file = experiment.config, dict[str, Tensor](), folder / "refined.safetensors"
    if file.exists():
        return load_file(file)
    at_once = max(1, config.evaluate.batch // config.refine.batch)
    progress = Progress(session, len(seen), "person")
    for domain in sorted({views[0].domain for views in seen.values()}):
        base.use_domain(domain)
        names = [name for name, views in seen.items() if views[0].domain == domain]
        for start in range(0, len(names), at_once):
            part = names[start : start + at_once]
            views = [undescribed(seen[name], config) for name in part]
            tokens = torch.stack([experiment.table[name] for name in part])
            made |= dict(zip(part, refined(base, tokens, views, experiment.point, config).cpu(), strict=True))
            progress.update(len(made), "refined")
    runs.write_bytes(file, save({name: tokens.contiguous() for name, tokens in made.items()}))
    return made


def inversions(
    base: QwenImage, experiment: Experiment, session: Session, folder: Path
) -> tuple[dict[int, Tensor], float | None]:
    """Number of a state -> tokens of Textual Inversion on all its views but the targets; seconds for one alone.

    folder: keeps both, so that a run that was broken off does not optimise them again.
    """
    panel, settings, point = experiment.panel, experiment.config.evaluate, experiment.point
    seen = {}
    for number in range(min(settings.inversion_states, len(panel.states))):
        hidden = {cell.target for cell in experiment.cells if cell.state == number}
        views = [view for place, view in enumerate(panel.states[number].views) if place not in hidden]
        if views and hidden:
            seen[number] = views
    if not seen:
        return {}, None
    config = optimising(experiment.config, settings.inversion_steps)
    cost, file = folder / "inversion_cost.json", folder / "inversions.safetensors"
    seconds = (json.loads(cost.read_text()) if cost.exists() else {}).get(origin.device())
    if seconds is None:  # nothing measured, or elsewhere: one pass is timed here
        seconds = seconds_of_inversion(base, next(iter(seen.values())), experiment)
        runs.write_json(cost, {origin.device(): seconds})
    if file.exists():
        return {int(number): tokens for number, tokens in load_file(file).items()}, seconds
    at_once, made, numbers = max(1, settings.batch // config.poc.batch), {}, list(seen)
    progress = Progress(session, settings.inversion_steps * -(-len(numbers) // at_once), "step")
    for start in range(0, len(numbers), at_once):
        part, before = numbers[start : start + at_once], settings.inversion_steps * (start // at_once)

        def told(step: int, said: str, before: int = before) -> None:
            progress.update(before + step, f"textual inversion, {said}")

        tokens, _ = invert(base, [seen[number] for number in part], [], point, config, told)
        made |= dict(zip(part, tokens.cpu(), strict=True))
    runs.write_bytes(file, save({str(number): tokens.contiguous() for number, tokens in made.items()}))
    return made, seconds


def seconds_of_inversion(base: QwenImage, views: Sequence[View], experiment: Experiment) -> float:
    """For one state alone: its first step and all before it, and the median of a few timings of further steps."""
    config, steps = experiment.config, experiment.config.evaluate.inversion_steps
    few = min(FEW, steps)

    def timed(count: int) -> float:
        with Cost() as cost:
            invert(base, [views], [], experiment.point, optimising(config, count))
        return cost.seconds

    timed(1)  # warms up
    first = timed(1)
    more = statistics.median(max(0.0, timed(1 + few) - first) for _ in range(3))
    return first + more / few * (steps - 1)


def optimising(config: Config, steps: int) -> Config:
    """With so many steps of Textual Inversion, at the rate that evaluate gives it."""
    poc = dataclasses.replace(config.poc, steps=steps, learning_rate=config.evaluate.inversion_rate)
    return dataclasses.replace(config, poc=poc)


def flow_losses(base: QwenImage, experiment: Experiment) -> dict[str, tuple[Score, Score]]:
    """On the first cell of each state."""
    panel, chosen = experiment.panel, first_cells(experiment)
    ours = dict(zip(experiment.asked[OURS].rows, experiment.asked[OURS].requests, strict=True))
    places = [experiment.cells.index(cell) for cell in chosen]
    tokens = torch.stack([experiment.table[ours[place].tokens] for place in places])
    turned = others(panel)
    order = {cell.state: place for place, cell in enumerate(chosen)}
    rivals = [order[turned[cell.state]] for cell in chosen]
    losses = arm_losses(base, tokens, rivals, [target(panel, cell) for cell in chosen], experiment.config)
    return loss_table(losses, Truth.of(panel, chosen).people, experiment.config.seed)


def first_cells(experiment: Experiment) -> list[Cell]:
    return list({cell.state: cell for cell in reversed(experiment.cells)}.values())[::-1]


def gathered(
    experiment: Experiment,
    pictures: Mapping[Request, Image.Image],
    hidden: Mapping[Request, Image.Image],
    material: Material,
) -> Evidence:
    """Everything that the judge says. hidden: pictures of what one reference hides."""
    panel, seen = experiment.panel, judged(experiment.everything(), pictures, material.judge)
    return Evidence(
        panel=panel,
        cells=tuple(experiment.cells),
        truth=Truth.of(panel, experiment.cells),
        views=material.views,
        real=real_targets(panel, experiment.cells, material.views),
        arms={arm: seen[arm] for arm in experiment.asked},
        counts={count: seen[f"{count} references"] for count in experiment.counts},
        wishes=experiment.wishes,
        overridden={arm: seen[override_of(arm)] for arm in experiment.overridden if experiment.overridden[arm].rows},
        copies={
            arm: copied(panel, experiment.cells, asked, pictures, experiment.main)
            for arm, asked in experiment.asked.items()
        },
        hiding=compared(experiment, hidden, material),
        dropped={group: seen[without(group)] for group in experiment.dropped},
    )


def compared(
    experiment: Experiment, pictures: Mapping[Request, Image.Image], material: Material
) -> dict[str, Compared]:
    """Attribute -> what the judge says where one reference hides it."""
    made = {}
    for name, found in experiment.hiding.items():
        seen = judged({"many": found.many, "one": found.one}, pictures, material.judge)
        made[name] = Compared(Truth.of(material.hidden, found.cells), seen["many"].seen, seen["one"].seen)
    return made

"""The training loop. Resumed equals unbroken: every draw is keyed on the step, the rest is in the checkpoint."""

import functools
import gc
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader, Dataset

from harald.base import BaseModel
from harald.config import Config, Train
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.progress import Progress
from harald.runtime import Session
from harald.settings import identity_hash
from harald.training import muon
from harald.training.batch import Batch, Batches, Parts
from harald.training.checkpoint import last_good, load_checkpoint, save_checkpoint, tidy
from harald.training.recording import Recorder
from harald.training.step import NAMES, measured_gradients, trained_parameters
from harald.training.tracking import Metrics, Tracker
from harald.training.validation import SCORE, Validation, best_step, exhausted
from harald.world import ALONE, Total, World

log = logging.getLogger(__name__)

GradientsOf = Callable[[Batch], tuple[list[Tensor], Tensor]]


@contextmanager
def settled() -> Iterator[None]:
    """What is there now outlives the block: garbage collection does not search the models again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def train(
    base: BaseModel,
    encoder: PersonEncoder,
    batches: Batches,
    config: Config,
    folder: Path,
    commit: Callable[[], None],
    session: Session,
    begin: Callable[[], None],
    sample: Callable[[int], None],
    validation: Validation | None = None,
    world: World = ALONE,
) -> tuple[int, int]:
    """Train up to config.train.steps, from the last good checkpoint under `folder`. Returns first and last step.

    commit: makes a finished checkpoint durable; session: is told of every step, and may ask to stop behind it;
    begin: puts the first weights in place where there is no checkpoint; sample: draws the fixed grid for a step;
    validation: scores every train.validate_every steps. The checkpoint of the best score stays, and train.patience
    scores without a better one end the training. world: processes that share the parts of every batch; the first one
    does all that is not a step.
    """
    settings, identity, gradients_of = config.train, identity_hash(config), gradients(base, encoder, config)
    optimizer = make_optimizer(encoder, settings)
    if world.rank:
        return _follow(base, encoder, optimizer, batches, config, world)
    checkpoints = folder / "checkpoints"
    found = last_good(checkpoints, identity)
    if not found:
        begin()
    start = step = load_checkpoint(found, encoder, optimizer) if found else 0
    log.info("start at step %d of %d (%s)", start, settings.steps, found.name if found else "no checkpoint yet")
    session.check()
    metrics = Metrics(folder / "metrics.jsonl", found, start)
    if found:
        tidy(found, settings.keep_checkpoints, best_step(metrics.content))
    over = start >= settings.steps or exhausted(metrics.content, settings.patience)
    if world.say(over):
        session.progress(start, start, "step")
        return start, start
    _share_state(encoder, optimizer, start, world)
    if start == 0:
        sample(0)
    progress = Progress(session, settings.steps, "step", start)

    def confirm() -> None:
        session.check()
        metrics.file.stat()  # its disk is away: nothing is begun anew in the place where it was

    with session.finishes_step(), settled(), Tracker(folder / "trackio", folder.name, asdict(config)) as tracker:

        def note(taken: Step, samples: int, scores: dict[str, float]) -> None:
            row = taken.row() | scores
            metrics.write(row)
            tracker.log(row)
            progress.update(taken.number, f"loss {row['loss']:.4f}", samples)

        under_way: list[tuple[Step, int]] = []  # a step is noted while the device works on the next one
        for parts in loader(own_parts(batches, settings, world), start, settings):
            step = parts[0].step + 1
            under_way.append(
                (train_step(gradients_of, encoder, optimizer, parts, config, world), int(parts[0].targets.of[0]))
            )
            stopping = session.stopping  # asked once: it may change in between
            drawing = step % settings.sample_every == 0 or step == settings.steps
            validating = validation is not None and step % settings.validate_every == 0
            due = validating or step % settings.checkpoint_every == 0 or step == settings.steps
            while len(under_way) > (1 if validating or not (stopping or drawing or due) else 0):
                note(*under_way.pop(0), {})
            if validation is not None and validating:
                scores = validation.row()
                session.score(validation.score, scores[SCORE])
                log.info("step %d: %s", step, ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
                note(*under_way.pop(0), scores)
            if drawing:
                sample(step)  # before the checkpoint: a kill in between then repeats the step, and loses no grid
            if due or stopping:
                save_checkpoint(
                    checkpoints, step, encoder, optimizer, metrics.content, identity, settings.keep_checkpoints,
                    confirm, extra=not due, best=best_step(metrics.content),
                )  # fmt: skip
                commit()
                log.info("checkpoint at step %d", step)
            enough = validating and exhausted(metrics.content, settings.patience)
            if enough:
                log.info("no better score since step %d: the training ends", best_step(metrics.content))
            if world.say(stopping or enough):
                break
    return start, step


def _follow(
    base: BaseModel, encoder: PersonEncoder, optimizer: AdamW, batches: Batches, config: Config, world: World
) -> tuple[int, int]:
    """The part of a process that is not the first one: steps, from where and as long as that one says."""
    settings, gradients_of = config.train, gradients(base, encoder, config)
    if world.say(0):
        return 0, 0
    start = step = _share_state(encoder, optimizer, 0, world)
    with settled():
        for parts in loader(own_parts(batches, settings, world), start, settings):
            train_step(gradients_of, encoder, optimizer, parts, config, world)
            step = parts[0].step + 1
            if world.say(0):
                break
    return start, step


def _share_state(encoder: PersonEncoder, optimizer: AdamW, start: int, world: World) -> int:
    """All processes begin with what the first one has. Returns its step."""
    start, parameters = world.say(start), trained_parameters(encoder)
    world.hand_out([p.detach() for p in parameters])
    if start and world.size > 1:
        if world.rank:
            for p in parameters:
                optimizer.state[p] = muon.empty_state(optimizer, p)
        world.hand_out([optimizer.state[p][name] for p in parameters for name in sorted(optimizer.state[p])])
    return start


def own_parts(batches: Batches, settings: Train, world: World) -> Parts:
    return Parts(batches, world.share(settings.parts), settings.parts)


@dataclass(frozen=True)
class Step:
    """An update whose numbers may still be on their way from the device. values: of each of NAMES, and whether it was
    measured (0 or 1); norm: of the gradient.
    """

    number: int
    states: str
    learning_rate: float
    values: Tensor
    norm: Tensor

    def row(self) -> dict[str, float]:
        """Waits for the step. Raises TrainingError on a loss or gradient that is not finite: it changed nothing."""
        *flat, norm = torch.cat([self.values.flatten(), self.norm[None]]).tolist()
        measured = zip(NAMES, flat[: len(NAMES)], flat[len(NAMES) :], strict=True)
        values = {name: value for name, value, there in measured if there} | {"grad_norm": norm}
        if not math.isfinite(values["loss"] + norm):
            raise TrainingError(
                f"step {self.number}: loss {values['loss']}, gradient norm {norm} (states {self.states})",
                "the step was not taken; look at these states, or lower train.learning_rate, and start the job again",
            )
        return {"step": self.number, **values, "learning_rate": self.learning_rate}


def gradients(base: BaseModel, encoder: PersonEncoder, config: Config, pool: Any = None) -> GradientsOf:
    """`measured_gradients` of a batch, recorded where the configuration wants it and the device can. pool: see
    Recorder.
    """
    if config.train.recorded and encoder.device.type == "cuda":
        return Recorder(base, encoder, config, pool)
    return functools.partial(measured_gradients, base, encoder, config=config)


def train_step(
    gradients_of: GradientsOf,
    encoder: PersonEncoder,
    optimizer: AdamW,
    parts: Sequence[Batch],
    config: Config,
    world: World = ALONE,
) -> Step:
    """One update, without waiting for the device. From a loss or gradient that is not finite on, the optimizer changes
    nothing any more. gradients_of: see `gradients`. parts: those of this process; their order of addition is the same
    for every number of processes.
    """
    settings, rate, parameters = config.train, learning_rate(parts[0].step, config.train), trained_parameters(encoder)
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = Total()
    for part in parts:
        own, values = gradients_of(part.to(encoder.device))
        total.add([*([g.clone() for g in own] if len(parts) > 1 else own), values])
    *summed, values = total.tensors()
    world.add([*summed, values])
    for parameter, gradient in zip(parameters, summed, strict=True):
        parameter.grad = gradient
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
    vars(optimizer)["found_inf"].logical_or_(~torch.isfinite(values[0] + norm))
    optimizer.step()
    return Step(
        number=parts[0].step + 1,
        states=", ".join(pair.state.state_id for part in parts for pair in part.pairs),
        learning_rate=rate,
        values=values,
        norm=norm,
    )


def make_optimizer(encoder: PersonEncoder, settings: Train) -> AdamW:
    """See muon.make_optimizer."""
    named = [(name, p) for name, p in encoder.named_parameters() if p.requires_grad]
    return muon.make_optimizer(
        settings.optimizer, named, settings.weight_decay,
        lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99),
    )  # fmt: skip


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then the phase's share of the rate, linear within the phase: independent of the run's length,
    so that a run can be made longer.
    """
    phase, before = settings.phase_at(step)
    begin, end = phase.rates if phase else (1.0, 1.0)
    share = begin + (end - begin) * min(1.0, before / phase.steps) if phase else begin
    return settings.learning_rate * share * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def loader(batches: Dataset, start: int, settings: Train) -> DataLoader:
    """Those of steps start, start + 1, ... in order, whatever the number of workers."""
    return DataLoader(
        batches,
        sampler=range(start, settings.steps),
        batch_size=None,
        pin_memory=torch.cuda.is_available(),
        num_workers=settings.workers,
        prefetch_factor=2 if settings.workers else None,
        multiprocessing_context=_workers_context() if settings.workers else None,
        worker_init_fn=_begin_worker,
    )


@functools.cache
def _workers_context() -> BaseContext:
    """Workers are forked from a process that has imported everything and never sees the GPU. Each of its own ("spawn")
    would import for 13 s, and one after another: a data set's index fills the pipe to the one before.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _begin_worker(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the loop still wants its step. And a worker is one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read at the first use

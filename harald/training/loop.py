"""The training loop. Resumed equals unbroken: every draw is keyed on the step, the rest is in the checkpoint."""

import functools
import logging
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from harald.base import BaseModel
from harald.config import Config, Train
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.progress import Progress
from harald.runtime import Session
from harald.settings import identity_hash
from harald.training.batch import Batch, Batches
from harald.training.checkpoint import last_good, load_checkpoint, save_checkpoint, tidy
from harald.training.step import training_loss
from harald.training.tracking import Metrics, Tracker
from harald.training.validation import SCORE, Validation, best_step, exhausted

log = logging.getLogger(__name__)


def train(
    base: BaseModel,
    encoder: PersonEncoder,
    batches: Batches,
    config: Config,
    folder: Path,
    commit: Callable[[], None],
    session: Session,
    sample: Callable[[int], None],
    validation: Validation | None = None,
) -> tuple[int, int]:
    """Train up to config.train.steps, from the last good checkpoint under `folder`. Returns first and last step.

    commit: makes a finished checkpoint durable; session: is told of every step, and may ask to stop behind it;
    sample: draws the fixed grid for a step; validation: scores every train.validate_every steps. The checkpoint of the
    best score stays, and train.patience scores without a better one end the training.
    """
    settings, identity = config.train, identity_hash(config)
    optimizer = make_optimizer(encoder, settings)
    checkpoints = folder / "checkpoints"
    found = last_good(checkpoints, identity)
    start = step = load_checkpoint(found, encoder, optimizer) if found else 0
    log.info("start at step %d of %d (%s)", start, settings.steps, found.name if found else "no checkpoint yet")
    session.check()
    metrics = Metrics(folder / "metrics.jsonl", found, start)
    if found:
        tidy(found, settings.keep_checkpoints, best_step(metrics.content))
    if start >= settings.steps or exhausted(metrics.content, settings.patience):
        session.progress(start, start, "step")
        return start, start
    if start == 0:
        sample(0)
    progress = Progress(session, settings.steps, "step", start)

    def confirm() -> None:
        session.check()
        metrics.file.stat()  # its disk is away: nothing is begun anew in the place where it was

    with session.finishes_step(), Tracker(folder / "trackio", folder.name, asdict(config)) as tracker:

        def note(taken: Step, samples: int, scores: dict[str, float]) -> None:
            row = taken.row() | scores
            metrics.write(row)
            tracker.log(row)
            progress.update(taken.number, f"loss {row['loss']:.4f}", samples)

        under_way: list[tuple[Step, int]] = []  # a step is noted while the device works on the next one
        for batch in loader(batches, start, settings):
            step = batch.step + 1
            under_way.append(
                (train_step(base, encoder, optimizer, batch.to(encoder.device), config), len(batch.targets))
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
            if validating and exhausted(metrics.content, settings.patience):
                log.info("no better score since step %d: the training ends", best_step(metrics.content))
                break
            if stopping:
                break
    return start, step


@dataclass(frozen=True)
class Step:
    """An update whose numbers may still be on their way from the device. values: [len(names)]."""

    number: int
    states: str
    learning_rate: float
    names: tuple[str, ...]
    values: Tensor

    def row(self) -> dict[str, float]:
        """Waits for the step. Raises TrainingError on a loss or gradient that is not finite: it changed nothing."""
        values = dict(zip(self.names, self.values.tolist(), strict=True))
        if not math.isfinite(values["loss"] + values["grad_norm"]):
            raise TrainingError(
                f"step {self.number}: loss {values['loss']}, gradient norm {values['grad_norm']} "
                f"(states {self.states})",
                "the step was not taken; look at these states, or lower train.learning_rate, and start the job again",
            )
        return {"step": self.number, **values, "learning_rate": self.learning_rate}


def train_step(
    base: BaseModel, encoder: PersonEncoder, optimizer: torch.optim.Optimizer, batch: Batch, config: Config
) -> Step:
    """One update, without waiting for the device. From a loss or gradient that is not finite on, the optimizer changes
    nothing any more.
    """
    settings, rate = config.train, learning_rate(batch.step, config.train)
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, parts = training_loss(base, encoder, batch, config)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained_parameters(encoder), settings.clip_norm)
    vars(optimizer)["found_inf"].logical_or_(~torch.isfinite(loss.detach() + norm))
    optimizer.step()
    numbers = {"loss": loss.detach(), "grad_norm": norm, **parts}
    return Step(
        number=batch.step + 1,
        states=", ".join(pair.state.state_id for pair in batch.pairs),
        learning_rate=rate,
        names=tuple(numbers),
        values=torch.stack([value.float() for value in numbers.values()]),
    )


def trained_parameters(encoder: PersonEncoder) -> list[torch.nn.Parameter]:
    return [p for p in encoder.parameters() if p.requires_grad]


def make_optimizer(encoder: PersonEncoder, settings: Train) -> torch.optim.Optimizer:
    """AdamW in one kernel, which takes no step where its `found_inf` is not 0 (the hook of GradScaler)."""
    parameters = trained_parameters(encoder)
    optimizer = torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99), fused=True
    )
    vars(optimizer)["found_inf"] = torch.zeros((), device=parameters[0].device)
    return optimizer


def learning_rate(step: int, settings: Train) -> float:
    """Linear warm-up, then the phase's rate: independent of the run's length, so that a run can be made longer."""
    return settings.at(step).learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))


def loader(batches: Batches, start: int, settings: Train) -> DataLoader:
    """Batches start, start + 1, ... in order, whatever the number of workers."""
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

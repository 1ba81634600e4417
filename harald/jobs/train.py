"""Train the encoder on a data set."""

import dataclasses
import functools
import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import torch
from PIL import Image

from harald import determinism, reporting, runs
from harald.base.kernels import kept_kernels
from harald.base.qwen_image import QwenImage
from harald.config import Config
from harald.data.description import check_groups
from harald.data.images import load_picture, png, within_pixels
from harald.data.index import states_for
from harald.data.manifest import split_of
from harald.data.parts import mask_file
from harald.data.people import at_most, split_key
from harald.encoder.model import PersonEncoder
from harald.errors import TrainingError
from harald.generation.draw import draw, grid
from harald.injection.prompt import ANY, parse
from harald.jobs.beginning import begin, origin
from harald.jobs.encoding import open_cache
from harald.jobs.loading import base_model, ensure, new_encoder
from harald.jobs.validating import validation
from harald.records import State
from harald.running.bridge import Asking, answering
from harald.runtime import Cluster, Runtime
from harald.settings import identity_hash
from harald.training.batch import Batches
from harald.training.disk import persist
from harald.training.economy import economical
from harald.training.loop import train
from harald.training.validation import SCORE, best_step, exhausted
from harald.world import ALONE, World, launch

log = logging.getLogger(__name__)

PANEL = 4  # states in the sample grid


def run(
    runtime: Runtime,
    config: Config,
    run_name: str,
    steps: int = 0,
    checkpoint_every: int = 0,
    gpus: int = 1,
    hosts: int = 1,
) -> dict:
    """steps, checkpoint_every: 0 means the preset's. gpus: of each of `hosts` machines; they change no byte."""
    config = with_flags(config, steps, checkpoint_every)
    check_groups(config.encoder.names)
    check_processes(config, runtime.cluster, gpus, hosts)
    if runtime.cluster.host:  # the first machine holds the run and says how it goes
        share(runtime, config, Path(), gpus)
        return {"state": "done", "host": runtime.cluster.host}
    folder = runs.open_run(runtime, "train", run_name, config, **origin(runtime, config, run_name))
    runtime.commit()
    start, end = fit(runtime, config, folder) if gpus * hosts == 1 else share(runtime, config, folder, gpus)
    report = write_report(folder, config)
    lines = (folder / "metrics.jsonl").read_bytes()
    done = end >= config.train.steps or exhausted(lines, config.train.patience)
    if not done:
        log.info("stopped at step %d of %d; the same command goes on from there", end, config.train.steps)
    best = best_step(lines)
    return {
        "run": folder.name,
        "state": "done" if done else "stopped",
        "from_step": start,
        "to_step": end,
        "steps": config.train.steps,
        **({} if best is None else {"best_step": best}),
        "folder": str(folder),
        "report": str(report),
    }


def with_flags(config: Config, steps: int, checkpoint_every: int) -> Config:
    changes = {"steps": steps, "checkpoint_every": checkpoint_every}
    if bad := {name: value for name, value in changes.items() if value < 0}:
        raise TrainingError(f"{bad} is negative", "use 1 or more, or leave the flag out for the preset's value")
    train = dataclasses.replace(
        config.train,
        steps=steps or config.train.steps,
        checkpoint_every=checkpoint_every or config.train.checkpoint_every,
    )
    return dataclasses.replace(config, train=train)


def check_processes(config: Config, cluster: Cluster, gpus: int, hosts: int) -> None:
    """Raises TrainingError where so many cannot work, or the batch cannot be shared among them."""
    size, parts = gpus * hosts, config.train.parts
    if min(gpus, hosts) < 1:
        raise TrainingError(f"--gpus is {gpus}, --hosts {hosts}", "use 1 or more")
    if parts % size:
        raise TrainingError(
            f"train.parts is {parts}, which {size} processes (--gpus {gpus} x --hosts {hosts}) cannot share equally",
            f"""use --overrides '{{"train.parts": {size}}}' if that is 2, 4, 8, ... and divides """
            f"train.states_per_batch ({config.train.states_per_batch}); it belongs to what a run's bytes depend on",
        )
    if hosts != len(cluster.addresses):
        raise TrainingError(
            f"--hosts is {hosts}, and this call has {len(cluster.addresses)}",
            "several hosts come from Modal: modal run -m harald.modal_runner::train --hosts N --gpus 8",
        )
    here = torch.cuda.device_count()
    if gpus > 1 and torch.cuda.is_available() and gpus > here:
        raise TrainingError(f"--gpus is {gpus}, and here are {here}", f"use at most {here}")


def share(runtime: Runtime, config: Config, folder: Path, gpus: int) -> tuple[int, int]:
    """`fit` in several processes of this machine, while this one answers for the run."""
    for ref in (config.models.base, config.models.encoder):
        ensure(runtime.hf_cache, ref)  # here: the libraries save a model in the first of several processes only
    plain = Runtime(runtime.root, runtime.datasets, runtime.output, runtime.hf_cache, machine=runtime.machine)
    with runtime.session.finishes_step(), answering(runtime) as address:
        work = functools.partial(launch, gpus, fit_part, address, plain, config, folder, cluster=runtime.cluster)
        running = ThreadPoolExecutor(1).submit(work)
        while not running.done():
            wait([running], timeout=0.2)  # here, in the main thread, signals are heard
        return running.result()


def fit_part(world: World, address: str, runtime: Runtime, config: Config, folder: Path) -> tuple[int, int]:
    """One of the processes."""
    determinism.enable(config.seed, config.deterministic)
    if world.rank == 0:
        logging.getLogger("harald").setLevel(logging.INFO)
        session = Asking(address)
        runtime = dataclasses.replace(runtime, session=session, commit=session.commit)
    return fit(runtime, config, folder, world)


def fit(runtime: Runtime, config: Config, folder: Path, world: World = ALONE) -> tuple[int, int]:
    """Everything of a run but its report; verify calls it with a scratch folder. Returns first and last step.

    world: processes that share the work; only the first one uses the folder.
    """
    states = states_for(runtime, config)
    world.expect_same("data set", data_digest(states))
    world.expect_same("configuration", identity_hash(config))
    splits = {state.state_id: split_of(split_key(state), config.data) for state in states}
    training, aside = ([s for s in states if splits[s.state_id] == name] for name in ("train", "validation"))
    if not training:
        raise TrainingError(
            f"all {len(states)} states are set aside for validation or evaluation",
            "lower data.validation_share or data.held_out_share",
        )
    training = at_most(training, config.data.max_states, config.seed)
    log.info("%d of %d states to train on, %d to validate on", len(training), len(states), len(aside))
    check_masks(training, config.train.part_weight)
    if not world.rank:
        note_data(folder, states)
        runs.remove_leftovers(folder / "samples")
    base = base_model(runtime.hf_cache, config, as_published=True)
    encoder = new_encoder(runtime.hf_cache, config, base)
    shape, mu = base.latent_shape(config.data.image_size)
    cache = open_cache(runtime, config, (view.image for state in training for view in state.views))
    batches = Batches(config, training, shape, mu, cache, encoder.chats, base.tokenize)

    def sample(step: int) -> None:
        picture = png(panel(base, encoder, (aside or training)[:PANEL], config))
        file = folder / "samples" / f"step_{step:08d}.png"
        persist(lambda: runs.write_bytes(file, picture), file.name, folder, len(picture))

    first = functools.partial(begin, runtime, config, folder, encoder)
    scored = validation(base, encoder, aside, config, folder) if not world.rank else None
    kept = kept_kernels(runtime.output / "kernels", "train", writes=not world.rank)
    with economical(base, encoder, config), kept as kernels:

        def commit() -> None:
            kernels.save()
            runtime.commit()

        return train(base, encoder, batches, config, folder, commit, runtime.session, first, sample, scored, world)


def check_masks(states: list[State], part_weight: float) -> None:
    """Raises TrainingError if parts are to have a weight of their own and no picture says where they are."""
    pictures = [view.image for state in states for view in state.views]
    if part_weight != 1 and not any(mask_file(picture).exists() for picture in pictures):
        raise TrainingError(
            f"train.part_weight is {part_weight}, and none of {len(pictures)} pictures has a mask of its small parts",
            f"write masks such as {mask_file(pictures[0])}, or set train.part_weight to 1; "
            "demo_dataset --parts writes them",
        )


def note_data(folder: Path, states: list[State]) -> None:
    """Remember which views the run was started on; warn where they have changed since: the bytes then change too."""
    digest = data_digest(states)
    file = folder / "data.json"
    if file.exists() and json.loads(file.read_text())["sha256"] != digest:
        log.warning(
            "the data set has changed since this run began: it goes on, but not to the bytes of an unbroken run"
        )
    views = sum(len(state.views) for state in states)
    runs.write_json(file, {"states": len(states), "views": views, "sha256": digest})


def data_digest(states: list[State]) -> str:
    names = [f"{state.state_id}/{view.name}" for state in states for view in state.views]
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def panel(base: QwenImage, encoder: PersonEncoder, states: list[State], config: Config) -> Image.Image:
    """The fixed grid: a reference, then one picture a scene, for each state."""
    rows = []
    for state in states:
        references = [load_picture(v.image) for v in state.views[: config.train.max_references]]
        tokens = encoder([[within_pixels(p, config.encoder.max_pixels) for p in references]])[0].detach()
        prompts = [parse(f"{state.views[0].domain} of <person>, {scene}") for scene in config.poc.scenes]
        rows.append(
            [
                references[0],
                *(draw(base, p, {ANY: tokens}, [config.seed], config, state.views[0].domain)[0] for p in prompts),
            ]
        )
    return grid(rows, side=min(256, config.generate.size * 2))


def write_report(folder: Path, config: Config) -> Path:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = [name for name in ("flow", "teacher", "contrast") if any(name in row for row in rows)]
    scores = [(row["step"], row[SCORE]) for row in rows if SCORE in row]
    html = reporting.render(
        "train",
        run=folder.name,
        config=(folder / "config.json").read_text(),
        fingerprint=(folder / "fingerprint.json").read_text(),
        steps=len(rows),
        last=rows[-1] if rows else None,
        curve=reporting.curves({n: [(r["step"], r[n]) for r in rows if n in r] for n in names}, "step", "loss"),
        scores=reporting.curves({"score": scores}, "step", "score of the validation") if scores else "",
        best=best_step((folder / "metrics.jsonl").read_bytes()),
        samples=[(p.stem, reporting.embed_file(p, 1024)) for p in sorted((folder / "samples").glob("*.png"))],
        scenes=config.poc.scenes,
    )
    runs.write_text(folder / "report.html", html)
    return folder / "report.html"

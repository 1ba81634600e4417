"""Every job as a Modal function: `modal run -m harald.modal_runner::<job> --flag value`. No logic lives here.

Flags come from the annotations (str, int, float, bool, Literal); lists and dicts travel as JSON strings.
`python -m harald <job>` runs the same jobs with the same flags on this machine (see cli.py).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import modal

from harald import config
from harald.config import Preset, app, page_app
from harald.runtime import Cluster, Machine, Pace, Runtime

JOBS: dict[str, Callable[..., Any]] = {}  # the plain functions, for cli.py; a modal.Function cannot be called
OPTIONS: dict[str, dict[str, Any]] = {}  # what each of them asks of Modal
HERE_ONLY = {"serve"}  # has no Modal function; `page` is its counterpart
PACE = Pace(poll=5.0, beat=20.0, settle=3.0)


@contextlib.contextmanager
def as_disk_errors() -> Iterator[None]:
    """What goes wrong with a volume is an OSError to the jobs, as with any disk."""
    try:
        yield
    except (modal.exception.Error, RuntimeError) as error:
        raise OSError(errno.EIO, f"volume: {error}") from error


def asked(name: str) -> int:
    """A flag of this command line: Modal fixes a function's machines before it reads the flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(f"--{name}", type=int, default=1)
    return max(1, vars(parser.parse_known_args()[0])[name])


def this_cluster() -> Cluster:
    """The machines of this call, from inside one of them."""
    cluster = modal.Cluster.from_context()
    return Cluster(cluster.container_rank(), tuple(cluster.container_ips(family="ipv4")))


def remote_runtime(options: dict[str, Any], hosts: int = 1) -> Runtime:
    """The mounted volumes; commit makes written files visible to other containers. options: asked of Modal, for each
    of the hosts.
    """
    price = config.price(options)

    def commit() -> None:
        with as_disk_errors():
            config.VOLUME_OUTPUT.commit()
            config.VOLUME_HF_CACHE.commit()

    def reload() -> None:
        with as_disk_errors():
            config.VOLUME_OUTPUT.reload()

    def fetch(path: Path) -> bytes | None:
        """Past the mount, whose view is old and cannot be reloaded while files are open."""
        try:
            with as_disk_errors():
                return b"".join(config.VOLUME_OUTPUT.read_file(path.relative_to(config.MNT_OUTPUT).as_posix()))
        except FileNotFoundError:
            return None

    return Runtime(
        root=Path(config.MNT),
        datasets={number: Path(config.MNT_DATASET, str(number)) for number in config.DATASETS},
        output=Path(config.MNT_OUTPUT),
        hf_cache=Path(config.HF_CACHE),
        commit=commit,
        reload=reload,
        fetch=fetch,
        remote_map=lambda name, items: part.starmap((name, *item) for item in items),
        call=modal.current_function_call_id() or "",
        pace=PACE,
        machine=Machine(
            options.get("gpu", ""),
            options["timeout"],
            None if price is None else price * hosts,
            config.price(config.PART_JOB),
        ),
        cluster=this_cluster() if hosts > 1 else Cluster(),
    )


def job(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`app.function`, with the plain function kept for the local command line. A job that takes `gpus` or `hosts` asks
    for as many as the command line says.
    """

    def register(function: Callable[..., Any]) -> Any:
        JOBS[function.__name__], OPTIONS[function.__name__] = function, options
        taken = inspect.signature(function).parameters
        gpus, hosts = (asked(name) if name in taken else 1 for name in ("gpus", "hosts"))

        @functools.wraps(function)
        def remote(*args: Any, **flags: Any) -> Any:
            from harald.jobs import concise_errors

            with concise_errors():
                return function(*args, **flags)

        body = modal.clustered(size=hosts, rdma=True)(remote) if hosts > 1 else remote
        return app.function(**config.on_gpus(options, gpus))(body)

    return register


def run(name: str, **flags: Any) -> dict:
    """Hand the flags to the job's code, here or in the container."""
    from harald.jobs import run_job

    if modal.is_local():
        return run_job(name, Runtime.local(), **flags)
    options = config.on_gpus(OPTIONS[name], flags.get("gpus", 1))
    return run_job(name, remote_runtime(options, flags.get("hosts", 1)), **flags)


@job(**config.SCAN_JOB)
def demo_dataset(
    preset: Preset = "mini",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    states: int = 12,
    views: int = 16,
    state_free: bool = False,
    look_alikes: bool = False,
    held_out: bool = False,
    parts: bool = False,
    workers: int = 0,
) -> dict:
    """Write synthetic persons in the data set's format, with the truth in a table beside them."""
    return run("demo_dataset", preset=preset, run_name=run_name, seed=seed, overrides=overrides, states=states,
               views=views, state_free=state_free, look_alikes=look_alikes, held_out=held_out,
               parts=parts, workers=workers)  # fmt: skip


@job(**config.CPU_JOB)
def doctor(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}") -> dict:
    """Cheap check of volumes, secret, models and data, with advice."""
    return run("doctor", preset=preset, run_name=run_name, seed=seed, overrides=overrides)


@job(**config.SCAN_JOB)
def download_models(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}") -> dict:
    """Fill the HF cache; resolve revisions and record them, so that later runs use the record."""
    return run("download_models", preset=preset, run_name=run_name, seed=seed, overrides=overrides)


@job(**config.SCAN_JOB)
def check_dataset(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}") -> dict:
    """Report every problem of the data set; write the manifest, the problem list and a contact sheet."""
    return run("check_dataset", preset=preset, run_name=run_name, seed=seed, overrides=overrides)


@job(**config.SCAN_JOB)
def prepare(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}") -> dict:
    """Encode every picture once and keep its latents."""
    return run("prepare", preset=preset, run_name=run_name, seed=seed, overrides=overrides)


@job(**config.INFER_JOB)
def injection_poc(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    state_id: str = "",
    train_run: str = "",
) -> dict:
    """Prove on one state that a person passes through the injection point; ends with a report."""
    return run("injection_poc", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               state_id=state_id, train_run=train_run)  # fmt: skip


@job(**config.TRAIN_JOB)
def train(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    steps: int = 0,
    checkpoint_every: int = 0,
    gpus: int = 1,
    hosts: int = 1,
) -> dict:
    """Train the encoder. Started again with the same name, it goes on from the last good checkpoint, also on another
    number of GPUs. --gpus: that share every batch, on each of --hosts machines.
    """
    return run("train", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               steps=steps, checkpoint_every=checkpoint_every, gpus=gpus, hosts=hosts)  # fmt: skip


@job(**config.INFER_JOB)
def predict_tokens(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    train_run: str = "",
    state_id: str = "",
    images: str = "",
    references: int = 0,
    person: str = "",
    refine: int = 0,
    domain: str = "",
) -> dict:
    """Pictures of a person -> a person file. --images: files or folders, comma-separated; or --state-id of a state.

    --person: FILE*0.7+FILE*0.3, or FILE+FILE for their mean: a person file that is a mix of others. --refine 10: ten
    steps of optimisation on the pictures (of --domain: photo), after the one pass, for what it missed.
    """
    return run("predict_tokens", preset=preset, run_name=run_name, seed=seed, overrides=overrides, train_run=train_run,
               state_id=state_id, images=images, references=references, person=person, refine=refine,
               domain=domain)  # fmt: skip


@job(**config.SCAN_JOB)
def export_encoder(
    preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}", train_run: str = ""
) -> dict:
    """A training run's best encoder as a folder for `hf upload`: bfloat16, with a model card."""
    return run("export_encoder", preset=preset, run_name=run_name, seed=seed, overrides=overrides, train_run=train_run)


@job(**config.INFER_JOB)
def generate(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    prompt: str = "",
    person: str = "",
    domain: str = "",
    count: int = 1,
    seeds: str = "",
    strength: float = 1.0,
    keep: str = "",
    drop: str = "",
    compare: bool = False,
) -> dict:
    """Person file(s) + prompt(s) -> pictures.

    --prompt: a text, or a JSON list of texts; --seeds: 3,7 in place of --count. --compare: without the person, too.
    --domain: photo or photo,comic: its words go before the prompt, its LoRA is loaded; without it the prompt says all.
    --person: FILE for <person>, name=FILE,name=FILE for <person:name>; FILE+FILE or FILE*0.7+FILE*0.3 mixes files.
    --drop: groups to leave out (face, hair, worn, outfit): hair,worn for every person, anna=hair+worn for one;
    --keep: the groups to use, in the same form. --strength: 0 is without the person, 1 as predicted, above 1 stronger.
    """
    return run("generate", preset=preset, run_name=run_name, seed=seed, overrides=overrides, prompt=prompt,
               person=person, domain=domain, count=count, seeds=seeds, strength=strength, keep=keep,
               drop=drop, compare=compare)  # fmt: skip


def serve(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    train_run: str = "",
    host: str = "127.0.0.1",
    port: int = 7860,
    token: str = "",
    auth: bool = True,
) -> dict:
    """The page on this machine: pictures of a person in, pictures of that person out. On Modal it is `page`."""
    return run("serve", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               train_run=train_run, host=host, port=port, token=token, auth=auth)  # fmt: skip


JOBS["serve"] = serve


@job(**config.INFER_JOB)
def evaluate(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    train_run: str = "",
    identity_run: str = "",
    source: Literal["auto", "proving_ground", "dataset"] = "auto",
    weights: str = "",
    into: str = "",
) -> dict:
    """Is the state kept? Draw persons that a trained encoder never saw, judge the pictures; ends with a report."""
    return run("evaluate", preset=preset, run_name=run_name, seed=seed, overrides=overrides, train_run=train_run,
               identity_run=identity_run, source=source, weights=weights, into=into)  # fmt: skip


@job(**config.TRAIN_JOB | {"retries": None})
def verify(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    train_run: str = "",
    steps: int = 3,
) -> dict:
    """Re-run a few steps of a training run and compare the bytes."""
    return run("verify", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               train_run=train_run, steps=steps)  # fmt: skip


@job(**config.PRETRAIN_JOB)
def pretrain_mini(
    preset: Preset = "mini",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    stage: str = "vae",
    segments: int = 0,
    weights: str = "",
    gpus: int = 1,
    again: bool = False,
) -> dict:
    """Train the mini models from nothing, stage by stage: vae, base, judge, vision. --segments: how many, 0 for all."""
    return run("pretrain_mini", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               stage=stage, segments=segments, weights=weights, gpus=gpus, again=again)  # fmt: skip


@job(**config.INFER_JOB)
def measure_mini(
    preset: Preset = "mini",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    weights: str = "",
    only: str = "",
    states: int = 128,
    pictures: int = 512,
    faces_in_place: int = -1,
    real_faces_in_place: int = -1,
    into: str = "",
) -> dict:
    """Measure every bar of the small world. --only: some of judge,vae,base,faces,speed,face_model."""
    return run("measure_mini", preset=preset, run_name=run_name, seed=seed, overrides=overrides,
               weights=weights, only=only, states=states, pictures=pictures,
               faces_in_place=faces_in_place, real_faces_in_place=real_faces_in_place, into=into)  # fmt: skip


@job(**config.TRAIN_JOB | {"retries": None})
def benchmark(
    preset: Preset = "full",
    run_name: str = "",
    seed: int = 0,
    overrides: str = "{}",
    only: str = "",
    rounds: int = 3,
    weights: Literal["random", "cache"] = "random",
    into: str = "",
) -> dict:
    """Measure training and drawing on this GPU against what one would use instead. --only: parts, with commas."""
    return run("benchmark", preset=preset, run_name=run_name, seed=seed, overrides=overrides, only=only,
               rounds=rounds, weights=weights, into=into)  # fmt: skip


@job(**config.CPU_JOB)
def runs(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}", job: str = "") -> dict:
    """List all runs: state, step, time, cost. --job, --run-name: only these."""
    return run("runs", preset=preset, run_name=run_name, seed=seed, overrides=overrides, job=job)


@job(**config.CPU_JOB)
def stop(preset: Preset = "full", run_name: str = "", seed: int = 0, overrides: str = "{}", job: str = "train") -> dict:
    """Ask a run of --job train or pretrain_mini to write what it has and end; started again, it goes on."""
    return run("stop", preset=preset, run_name=run_name, seed=seed, overrides=overrides, job=job)


@job(**config.TEST_JOB)
def tests(preset: Preset = "mini", run_name: str = "", seed: int = 0, overrides: str = "{}", select: str = "") -> dict:
    """Run the test suite in this container; ends with pytest's exit code and a report. --select: its -k expression."""
    return run("tests", preset=preset, run_name=run_name, seed=seed, overrides=overrides, select=select)


@page_app.function(**config.PAGE_JOB)
@modal.concurrent(max_inputs=config.PAGE_REQUESTS)
@modal.asgi_app(requires_proxy_auth=True)
def page() -> Any:
    """The page, behind Modal's proxy and its tokens: modal deploy -m harald.modal_runner::page_app."""
    from harald.jobs import concise_errors, serve

    with concise_errors():
        return serve.hosted(remote_runtime(config.PAGE_JOB), config.PAGE_PRESET, config.PAGE_TRAIN_RUN)


@app.function(**config.PART_JOB)
def part(name: str, *item: Any) -> Any:
    """One item of a fan-out (see Runtime.fan_out); not a job of its own."""
    from harald import jobs

    with jobs.concise_errors():
        return jobs.run_part(name, remote_runtime(config.PART_JOB), item)

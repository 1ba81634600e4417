"""Samples a second of one GPU and of two, through the engine that training uses."""

import dataclasses
from collections.abc import Callable, Iterator

from harald import determinism
from harald.benchmark.bars import GPUS, ratio, row, runnable
from harald.benchmark.bench import Bench, Measured
from harald.benchmark.clock import Timing, once
from harald.training.batch import Batches
from harald.training.economy import economical
from harald.training.loop import gradients, make_optimizer, own_parts, train_step
from harald.world import World, launch

STATES = 4  # of a step, in two parts
WARM_UPS = 2


def steps(world: World, made: Callable[[], Bench]) -> Timing:
    """Of one of the processes; all step together."""
    bench = made()
    determinism.enable(bench.config.seed, bench.config.deterministic)
    economy = runnable(bench.config.train.economy, bench.device)
    train = dataclasses.replace(bench.config.train, phases=(), states_per_batch=STATES, parts=2, economy=economy)
    config = dataclasses.replace(bench.config, train=train)
    base = bench.base()
    encoder = bench.encoder(base)
    shape, mu = base.latent_shape(config.data.image_size)
    parts = own_parts(Batches(config, bench.states, shape, mu, None, encoder.chats, base.tokenize), train, world)[0]
    optimizer = make_optimizer(encoder, train)
    with economical(base, encoder, config):
        of = gradients(base, encoder, config)
        taken = [  # what goes wrong in one process must end all: the others wait for it
            once(lambda: train_step(of, encoder, optimizer, parts, config, world), bench.device)
            for _ in range(bench.rounds + WARM_UPS)
        ][WARM_UPS:]
    return Timing(tuple(seconds for seconds, _ in taken), max(peak for _, peak in taken))


def part(bench: Bench) -> Iterator[Measured]:
    """Needs two GPUs."""
    timings = {f"{count} GPU{'s' * (count > 1)}": launch(count, steps, bench.again) for count in (1, 2)}
    one, two = timings.values()
    samples = STATES * bench.config.train.targets_per_state
    text = "\n".join([
        f"A step of {STATES} states x {bench.config.train.targets_per_state} targets in two parts, one after the other "
        "or one on each.", "",
        "| on | a step | fastest to slowest | a sample | 1,000 samples on one | peak memory |",
        "|---|---|---|---|---|---|",
        *(row(name, timing, bench.device, samples) for name, timing in timings.items()),
    ])  # fmt: skip
    yield Measured(timings, {GPUS: ratio(one, two)}, text)

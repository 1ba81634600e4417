"""Processes for tests that kill: forked from one server that has imported everything, so that a start costs little."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["harald.cli", "harald.jobs.train", "harald.proving_ground.mini_models", "trackio", "matplotlib.figure"]
)

"""The jobs. Each is a module with `run(runtime, config, run_name, **flags) -> dict`; no job knows of Modal."""

import contextlib
import dataclasses
import importlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from harald import determinism, settings
from harald.errors import HaraldError
from harald.running.session import Watched
from harald.runtime import Runtime

log = logging.getLogger(__name__)

BRIEF = ("runs", "stop")  # keep no run that an estimate could be learnt from


def run_job(
    name: str, runtime: Runtime, preset: str, run_name: str, seed: int, overrides: str, **flags: Any
) -> dict[str, Any]:
    """Flags -> config -> the job's `run`. Returns JSON-ready facts; `report` is the path of the thing to look at.

    The run that the job opens is its own until it ends, however it ends. Raises HaraldError for what a user can mend.
    """
    logging.getLogger("harald").setLevel(logging.INFO)
    config = settings.resolve(preset, seed, overrides)
    determinism.enable(config.seed, config.deterministic)
    module = importlib.import_module(f"harald.jobs.{name}")
    refresh(runtime)
    if name in BRIEF:
        log.info("estimate: seconds")
    with Watched(runtime, name, preset) as session:
        result = module.run(dataclasses.replace(runtime, session=session), config, run_name, **flags)
        runtime.commit()
    return {**result, **session.facts()}


def refresh(runtime: Runtime) -> None:
    """See what others have written."""
    try:
        runtime.reload()
    except OSError as error:  # a warm container may have files open
        log.warning("the output is seen as it was (%s)", error)


def run_part(name: str, runtime: Runtime, item: tuple) -> tuple[float, Any]:
    """One item of a fan-out (see Runtime.map): seconds that it took, result. What a container before it has written, of
    the same item too, is seen.
    """
    began = time.monotonic()
    refresh(runtime)
    result = part(name)(runtime, *item)
    return time.monotonic() - began, result


@contextlib.contextmanager
def concise_errors() -> Iterator[None]:
    """Inside a container: an error that the user can mend is logged as its message, without the frames of our code.

    Modal prints what a function raises with traceback.print_exception, which asks sys.tracebacklimit. The limit is
    lifted again here because a warm container serves more than one call. Only SystemExit carries an exit code of its
    own from the container to the command line.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    vars(sys).pop("tracebacklimit", None)
    try:
        yield
    except HaraldError as error:
        sys.tracebacklimit = 0
        if error.exit_code != 1:
            log.error("error: %s", error)
            raise SystemExit(error.exit_code) from None
        raise error from None


def part(name: str) -> Callable[..., Any]:
    """The function behind one item of a fan-out (see Runtime.map)."""
    from harald.jobs import encoding

    return {"cache_key": encoding.cache_key, "encode_shards": encoding.encode_shards}[name]

"""Ask a run to write what it has and end. Started again with the same name, it goes on."""

import logging
import time

from harald import runs
from harald.config import Config
from harald.errors import ConfigError, RunError, did_you_mean
from harald.running.lease import Note
from harald.runtime import Runtime

log = logging.getLogger(__name__)

CAN_STOP = ("train", "pretrain_mini")  # at the next step; behind the segment


def run(runtime: Runtime, config: Config, run_name: str, job: str = "train") -> dict:
    """run_name: empty for the newest run of the job. The request is for the run's owner of now, and for what goes on in
    its place after a preemption; a later start does not hear it. Raises RunError if the run has no owner.
    """
    if job not in CAN_STOP:
        raise ConfigError(f"--job is {job!r}", did_you_mean(job, CAN_STOP))
    folder = runs.find_run(runtime, job, run_name)
    held = Note.parse(runtime.fetch(folder / runs.LEASE))
    if held is None or held.is_silent(runtime.pace.silence):
        raise RunError(f"run {folder.name!r} of {job} is not running", "see what is: runs")
    runs.write_json(folder / runs.STOP, {"owner": held.owner.key, "asked": time.time()})
    runtime.commit()
    log.info("asked %s to end run %s of %s", held.owner, folder.name, job)
    return {"job": job, "run": folder.name, "owner": str(held.owner)}

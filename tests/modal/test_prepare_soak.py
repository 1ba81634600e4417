"""A sample of the fan-out's soak; all of it: python -m tests.modal.prepare_soak."""

import pytest

from harald.jobs.prepare import run
from harald.runtime import Runtime
from harald.settings import resolve
from tests.fakemodal import sandbox
from tests.modal import prepare_soak
from tests.states import write_dataset

pytestmark = [pytest.mark.modal, pytest.mark.slow]


def test_parts_that_are_killed_cost_no_shard_and_no_work_that_was_written(tmp_path):
    if reason := sandbox.why_impossible():
        pytest.skip(f"containers cannot be started: {reason}")
    tally = prepare_soak.soak(tmp_path, jobs=1, seed=0)
    assert not tally.problems and (tally.lost, tally.twice, tally.other) == (0, 0, 0)
    assert tally.ends.total() > 0
    assert tally.starts == 1  # the parts were tried again, not the job
    assert tally.written <= tally.shards == 4 * prepare_soak.STATES


def test_tally_sees_what_is_lost_written_twice_and_damaged(tmp_path):
    write_dataset(tmp_path, states=3, views=2)
    runtime, config = Runtime.local(tmp_path), resolve("tiny", overrides='{"prepare.pictures_per_shard": 4}')
    run(runtime, config, "run-000")
    kept = tmp_path / "output"
    whole = prepare_soak.shards(kept)
    kept.rename(tmp_path / "run-000")
    kept, tally = tmp_path / "run-000", prepare_soak.Tally()
    (kept / "a.log").write_text("shard aa written\nshard aa written\nshard bb written\n[stand-in] killing ta-1\n")
    gone, damaged, *_ = sorted((kept / "latents").glob("*/*.safetensors"))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    prepare_soak.look(kept, whole, tally)
    assert (tally.lost, tally.twice, tally.written, tally.ends[prepare_soak.KILLED]) == (1, 1, 3, 1)
    assert tally.other >= 1 and not any(row["met"] for row in prepare_soak.rows(tally))

"""A short soak; and that it sees what it looks for."""

import json

import pytest

from harald import runs
from tests import results, soak


@pytest.mark.slow
def test_killed_runs_lose_nothing(tmp_path):
    tally = soak.soak(tmp_path, jobs=4, seed=1, variants=1)
    assert tally.problems == []
    assert (tally.runs, tally.kills.total() > 0, tally.files > 30) == (4, True, True)
    assert all(row["met"] for row in soak.rows(tally))


def test_what_is_lost_corrupt_or_other_is_counted(tmp_path, monkeypatch):
    """A worker that goes on from the start, leaves a torn file and ends with other bytes."""
    train = tmp_path / "output" / "train"
    runs.write_text(train / "whole-0" / "metrics.jsonl", '{"step": 1}\n')
    said = iter(["start at step 0 of 6\ncheckpoint at step 4\n", "start at step 2 of 6\n"])

    def start(root, name, seed, log_file, kill) -> int:
        with log_file.open("a") as file:
            file.write(next(said))
        runs.write_text(train / name / "metrics.jsonl", '{"step": 1}\n{"st')
        return -9 if kill else 0

    monkeypatch.setattr(soak, "start", start)
    tally = soak.Tally()
    soak.torture(tmp_path, "run", 0, [soak.Kill(operation=5)], tally)
    assert (tally.lost, tally.corrupt, tally.other_bytes, tally.kills[soak.OPERATION]) == (1, 1, 1, 1)
    assert not any(row["met"] for row in soak.rows(tally))


def test_rows_replace_those_of_the_same_name(tmp_path):
    file = tmp_path / "production.json"
    runs.write_json(file, {"bars": [{"name": "another", "value": 1}, {"name": "soak: corrupt files", "value": 7}]})
    results.write(file, soak.rows(soak.Tally(runs=200, resumes=300, files=4000)), seed=0)
    bars = {row["name"]: row for row in json.loads(file.read_text())["bars"]}
    assert bars["another"]["value"] == 1 and bars["soak: corrupt files"]["value"] == 0 and len(bars) == 4
    assert set(bars["soak: corrupt files"]) >= {"name", "bar", "value", "low", "high", "met"}

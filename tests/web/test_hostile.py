"""A sample of the hostile requests; all of them: python -m tests.web.hostile."""

import json

from tests import results
from tests.web import hostile
from tests.web.server import running, studio


def test_malformed_requests_end_in_a_clear_refusal_and_nothing_is_written():
    with running(studio(**hostile.LIMITS)) as address:
        outcome = hostile.attack(address, hostile.cases(seed=1, count=25))
    assert not outcome.unclear and not outcome.written
    assert (outcome.clear, outcome.crashed) == (25, 0)


def test_rows_replace_those_of_the_same_name_and_leave_others(tmp_path):
    file, other = tmp_path / "production.json", {"name": "another bar", "bar": 1, "value": 2, "met": True}
    file.write_text(json.dumps({"bars": [other]}))
    for written in ([], ["/tmp/x"]):
        results.write(file, hostile.rows(hostile.Outcome(100, 0, written, []), 100), seed=0)
    first, *fresh = json.loads(file.read_text())["bars"]
    assert first == other
    assert [row["met"] for row in fresh] == [True, True, False]
    assert all({"command", "commit", "device", "seed", "low", "high"} <= set(row) for row in fresh)

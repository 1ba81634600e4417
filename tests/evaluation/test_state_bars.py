import json
import math

import pytest

from harald.errors import ConfigError
from harald.evaluation.accuracy import Score
from harald.evaluation.arms import IDENTITY
from harald.evaluation.bar import Origin
from harald.evaluation.state_bars import BARS, COPY, MORE, merge_into, rows

HERE = Origin("here", "abc", "CPU")


def score(value: float, spread: float = 0.01) -> Score:
    return Score(value, value - spread, value + spread, 8)


def made(name: str, value: Score, seed: int = 0, encoder: str = "e/1", source: str = "proving_ground") -> list[dict]:
    return rows({name: value}, {}, HERE, seed=seed, encoder=encoder, source=source)


@pytest.mark.parametrize(
    ("name", "value", "met"),
    [
        ("twin test", score(0.98), True),
        ("twin test", score(0.979), False),
        ("twin test, identity-only tokens", score(0.61), False),
        ("state kept: glasses", score(0.94), False),
        ("state kept: earrings", score(0.91), True),
        ("invented", score(0.03), True),
        ("same domain minus photo → comic", score(-0.2), True),
        (COPY, score(0.05, 0.06), True),
        (COPY, score(0.05, 0.01), False),
        (MORE, score(0.0), False),
        (MORE, score(0.01), True),
    ],
)
def test_value_is_compared_with_its_bar_in_the_right_direction(name, value, met):
    (row,) = (row for row in made(name, value) if row["name"] == name)
    assert row["met"] is met and row["value"] == value.value and row["seed"] == 0 and row["command"] == "here"


def test_every_bar_has_a_row_and_what_was_not_measured_is_not_met_and_says_why():
    table = rows({"override": Score(math.nan, math.nan, math.nan, 0)}, {IDENTITY: "no run"}, HERE, seed=1)
    assert [row["name"] for row in table] == [bar.name for bar in BARS]
    assert not any(row["met"] for row in table) and all(row["note"] and row["value"] is None for row in table)
    assert table[1]["note"] == "no run"
    json.dumps(table, allow_nan=False)


def test_rows_of_several_seeds_stand_side_by_side_and_a_seed_replaces_its_own(tmp_path):
    file = tmp_path / "docs" / "state.json"
    for seed, value in ((0, 0.5), (1, 0.6), (0, 0.99)):
        merge_into(file, made("twin test", score(value), seed), HERE, seed)
    merge_into(file, made("twin test", score(0.7), 0, source="dataset"), HERE, 0)
    content = json.loads(file.read_text())
    assert set(content) == {"command", "commit", "device", "seed", "bars"} and len(content["bars"]) == 3 * len(BARS)
    twin = {(r["source"], r["seed"]): r["value"] for r in content["bars"] if r["name"] == "twin test"}
    assert twin == {("proving_ground", 0): 0.99, ("proving_ground", 1): 0.6, ("dataset", 0): 0.7}


@pytest.mark.parametrize("content", ["[]", "{", '{"bars": [{"name": "twin test"}]}'])
def test_file_that_holds_other_things_is_refused_and_stays(tmp_path, content):
    file = tmp_path / "other.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"other.json holds no rows(.|\n)*another file"):
        merge_into(file, made("twin test", score(0.9)), HERE, 0)
    assert file.read_text() == content


def test_what_a_run_could_not_measure_leaves_what_one_of_the_same_encoder_has_measured(tmp_path):
    file = tmp_path / "state.json"

    def override() -> float | None:
        return next(r["value"] for r in json.loads(file.read_text())["bars"] if r["name"] == "override")

    merge_into(file, made("override", score(0.9)), HERE, 0)
    merge_into(file, made("twin test", score(0.9)), HERE, 0)
    assert override() == 0.9
    merge_into(file, made("twin test", score(0.9), encoder="e/2"), HERE, 0)
    assert override() is None

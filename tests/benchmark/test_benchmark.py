"""The job at the smallest sizes; its figures are for a GPU."""

import dataclasses
import json
import math

import pytest
import torch

from harald import config
from harald.benchmark import shapes, table, training
from harald.benchmark.clock import Timing, in_turn
from harald.errors import ConfigError
from harald.evaluation.bar import Origin
from harald.jobs import benchmark
from harald.runtime import Runtime
from tests.models import cache

CPU = torch.device("cpu")
HERE = Origin("command", "commit", "device")


def test_job_times_all_arms_that_a_cpu_can_take_and_writes_rows(tmp_path):
    runtime = dataclasses.replace(Runtime.local(tmp_path), hf_cache=cache())
    file = tmp_path / "rows.json"
    done = benchmark.run(runtime, config.tiny(), "one", rounds=1, into=str(file))
    facts = json.loads((tmp_path / "output/benchmark/one/benchmark.json").read_text())
    timings = facts["timings"]
    assert {training.PLAIN, training.EAGER, "stock pipeline", "edit pipeline, pictures: 3"} <= timings.keys()
    assert not [name for name, timing in timings.items() if timing["failed"] or timing["seconds"][0] <= 0]
    assert facts["flops"] > 0 < facts["rate"]
    assert facts["float8_gradients"].keys() == dict(config.tiny().encoder.groups).keys()
    assert all(0.9 < cosine < 1 and 0.9 < norm < 1.1 for cosine, norm in facts["float8_gradients"].values())
    rows = json.loads(file.read_text())["bars"]
    assert [row["name"] for row in rows] == [bar.name for bar in table.BARS]
    assert {row["note"] for row in rows} == {"not measured"} and len(done["short"]) == len(rows)  # no compiler, no GPU
    assert "| plain loop |" in (tmp_path / "output/benchmark/one/benchmark.md").read_text()
    with pytest.raises(ConfigError, match="the part 'drow'"):
        benchmark.run(runtime, config.tiny(), "two", only="drow")


def test_both_training_arms_see_as_many_samples_and_ours_reads_the_references_once(tmp_path):
    from harald.jobs.loading import base_model, new_encoder

    c = config.tiny()
    base = base_model(cache(), c)
    steps = training.Steps(base, new_encoder(cache(), c, base), benchmark.made_up(tmp_path, c), c)
    ours, plain = (steps.batches[name] for name in ("ours", "plain"))
    assert len(ours.targets) == len(plain.targets) == steps.samples
    assert len(plain.pairs) == c.train.targets_per_state * len(ours.pairs)
    assert {len(pair.references) for pair in (*ours.pairs, *plain.pairs)} == {c.train.max_references}


def test_floating_point_operations_grow_with_the_states_alone(tmp_path):
    """Nothing is recomputed, and nothing is counted for the host's sake."""
    from harald.jobs.loading import base_model, new_encoder

    c = config.tiny()
    base = base_model(cache(), c)
    encoder, states = new_encoder(cache(), c, base), benchmark.made_up(tmp_path, c)

    def flops(count: int) -> int:
        train = dataclasses.replace(c.train, states_per_batch=count)
        return training.Steps(base, encoder, states, dataclasses.replace(c, train=train)).flops()

    assert flops(2) == pytest.approx(2 * flops(1), rel=0.02)


def test_arms_take_turns_and_one_that_fails_stops_none(monkeypatch):
    said = []

    def fails() -> None:
        said.append("bad")
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    found = in_turn({"a": lambda: said.append("a"), "bad": fails, "b": lambda: said.append("b")}, 2, CPU)
    assert said == ["a", "bad", "b", "a", "b", "a", "b"]
    assert len(found["a"].seconds) == 2 and found["bad"] == Timing((), 0, "OutOfMemoryError: CUDA out of memory.")


def test_bars_are_ratios_of_medians_and_a_new_measurement_keeps_what_it_has_not(tmp_path):
    slow, fast = Timing((3.0, 4.0, 5.0), 1), Timing((1.0, 1.0, 2.0), 1)
    found = table.measured({training.PLAIN: slow, training.COMPILED: fast}, flops=55, rate=100.0)
    assert found[table.THROUGHPUT] == (4.0, 2.5, 4.0)
    assert found[table.SHARE] == (0.55, 0.275, 0.55)
    assert all(math.isnan(number) for number in found[table.EDIT])
    rows = {row["name"]: row for row in table.bar_rows(found, HERE, 0)}
    assert rows[table.THROUGHPUT.name]["met"] and not rows[table.EDIT.name]["met"]
    file = tmp_path / "rows.json"
    table.merge_into(file, list(rows.values()), HERE, 0)
    table.merge_into(file, table.bar_rows({}, HERE, 0), HERE, 0)
    assert {row["name"]: row["value"] for row in json.loads(file.read_text())["bars"]}[table.THROUGHPUT.name] == 4.0


def test_random_base_has_the_published_sizes():
    base = shapes.random_base(config.full().models.base, torch.device("meta"), torch.bfloat16)
    assert sum(p.numel() for p in base.transformer.parameters()) == 20_430_401_088
    assert {p.dtype for p in base.transformer.parameters()} == {torch.bfloat16} and base.width == 3584
    with pytest.raises(ConfigError, match="not recorded"):
        shapes.random_base(config.tiny().models.base, CPU, torch.float32)

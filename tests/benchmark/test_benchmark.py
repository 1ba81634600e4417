"""The job at the smallest sizes; its figures are for a GPU."""

import contextlib
import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harald import config
from harald.base import compiled
from harald.base.float8 import Float8Linear
from harald.benchmark import bars, drawing, memory, roofline, same_bytes, shapes, table, training
from harald.benchmark.bench import Bench, Measured, made_up
from harald.benchmark.clock import Timing, at_steps, in_turn
from harald.config import Economy
from harald.errors import ConfigError, HaraldError
from harald.evaluation.bar import Origin
from harald.injection.points import plain
from harald.jobs import benchmark
from harald.runtime import Runtime
from harald.training.step import trained_parameters
from tests.models import cache

CPU = torch.device("cpu")
FLOAT8 = Economy(frozen="float8_once")
HERE = Origin("command", "commit", "device")


@pytest.fixture
def compiling(monkeypatch):
    """As on a GPU, with a compiler that changes nothing and takes no time: what compiling does has tests of its own."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(torch, "compile", lambda **_: lambda call: call)


def runtime(root) -> Runtime:
    return dataclasses.replace(Runtime.local(root), hf_cache=cache())


def as_full(**train) -> config.Config:
    """Preset tiny, a step of which is done as in preset full."""
    c, full = config.tiny(), config.full().train
    same = {"economy": full.economy, "recorded": full.recorded}
    return dataclasses.replace(c, train=dataclasses.replace(c.train, **same | train))


def bench(tmp_path, **train) -> Bench:
    c = as_full(**train)
    return benchmark.make_bench(cache(), c, "random", 1, 1e12, made_up(tmp_path, c))


def steps(tmp_path, **train) -> training.Steps:
    made = bench(tmp_path, **train)
    base = made.base()
    return training.Steps(base, made.encoder(base), made.states, made.config)


@pytest.mark.slow
def test_training_part_measures_every_arm_and_writes_rows_and_the_page(tmp_path):
    file, page = tmp_path / "docs/results/rows.json", tmp_path / "docs/hardware.md"
    page.parent.mkdir()
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    done = benchmark.run(runtime(tmp_path), as_full(), "one", only="train", rounds=1, into=str(file))
    facts = json.loads((tmp_path / "output/benchmark/one/train.json").read_text())
    assert facts["timings"].keys() == set(training.ARMS)
    assert not [name for name, timing in facts["timings"].items() if timing["failed"] or timing["seconds"][0] <= 0]
    assert facts["float8_gradients"].keys() == dict(config.tiny().encoder.groups).keys()
    assert all(0.9 < cosine < 1 and 0.9 < norm < 1.1 for cosine, norm in facts["float8_gradients"].values())
    rows = {row["name"]: row for row in json.loads(file.read_text())["bars"]}
    assert list(rows) == [bar.name for bar in bars.BARS]
    assert rows[bars.THROUGHPUT.name]["value"] > 0 and rows[bars.EXACT.name]["value"] is None
    assert "without the teacher's pass; a step with it takes" in rows[bars.THROUGHPUT.name]["note"]
    assert set(done["short"]) <= {bars.THROUGHPUT.name, bars.THROUGHPUT_8.name, bars.SHARE.name}
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "### train" in text and "| plain loop |" in text and "Prices are Modal's list prices of" in text


@pytest.mark.slow
def test_drawing_part_measures_every_arm(tmp_path, compiling, monkeypatch):
    monkeypatch.setattr(drawing, "EDITS", ())  # whatever the size, its pictures have a million pixels
    monkeypatch.setattr(drawing, "REFERENCES", (1, 3))
    monkeypatch.setattr(drawing, "STEPS", (2, 3))
    whole, persons, found = drawing.part(bench(tmp_path))
    assert whole.bars.keys() == found.bars.keys() and math.isnan(whole.bars[bars.PERSON][0])
    assert not any(math.isnan(m.bars[bar][0]) for m in (whole, found) for bar in (bars.EXACT, bars.FAST))
    assert not math.isnan(persons.bars[bars.PERSON][0])
    assert {drawing.EXACT, drawing.FAST, drawing.LIGHTNING, drawing.person_arm(3)} <= found.timings.keys()
    assert not [name for name, timing in found.timings.items() if timing.failed]
    assert {bars.EXACT, bars.FAST, bars.PERSON} <= found.bars.keys()
    off = found.facts["deviation"]
    assert 0.99 < off["cosine of the velocity"] <= 1 and 0 < off["relative error of the velocity"] < 0.1
    assert 0 < found.facts["computed"] <= 1


@pytest.mark.slow
def test_everything_that_is_promised_has_the_same_bytes_twice(tmp_path, compiling, monkeypatch):
    monkeypatch.setattr(same_bytes, "of_another_process", lambda _: {})
    before, after = same_bytes.part(bench(tmp_path))
    assert not {bars.SAME} & (before.bars.keys() | after.bars.keys()) and bars.DETERMINISTIC in after.bars
    found = after.facts["differ"]
    assert {count for count, _ in found.values()} == {0} and {len(digest) for _, digest in found.values()} == {64}
    for name in ("fast", "lightning", "float8", "recorded", "exact", "eager"):
        assert any(name in each for each in found), name
    digests = {name: digest for name, (_, digest) in found.items()}
    assert digests["a picture, eager"] != digests["gradients, eager"]


@pytest.mark.slow
def test_another_process_has_the_same_bytes(tmp_path):
    made = bench(tmp_path)
    torch.randn(1)  # weights do not depend on what was drawn before
    own = same_bytes.digests(made.again, torch.get_num_threads())
    assert own.keys() == {"gradients, eager", "a picture, eager"} and {len(digest) for digest in own.values()} == {64}
    assert same_bytes.of_another_process(made) == own


@pytest.mark.parametrize(("other", "expected"), [("a" * 64, 0.0), ("b" * 64, 1.0), ("failed: no", None), ("", None)])
def test_bytes_of_another_process_count_like_those_of_a_second_call(tmp_path, other, expected):
    timings, made = dict.fromkeys((training.OURS, training.LOOSE), Timing((1.0,), 1)), bench(tmp_path)
    for count in (0, 1):
        found = same_bytes.tables(made, {"it": (count, "a" * 64)}, timings, 1, {"it": other}).bars.get(bars.SAME)
        assert found == (None if expected is None else (expected + count,) * 3)


@pytest.mark.slow
def test_memory_and_roofline_have_a_figure_for_everything(tmp_path):
    made = bench(tmp_path)
    for part in (memory.training, roofline.part):
        *_, found = part(made)
        assert found.timings and not [name for name, timing in found.timings.items() if timing.failed]
    assert all(value > 0 for name, value in found.facts["flops"].items() if name != roofline.OPTIMISER)


def test_smallest_card_is_the_first_on_which_everything_runs(monkeypatch):
    bounds: list[float] = []

    @contextlib.contextmanager
    def card(gib, device):
        bounds.append(gib)
        yield

    monkeypatch.setattr(memory, "card", card)

    def work() -> dict[str, Timing]:
        failed = "" if bounds[-1] > 60 else "OutOfMemoryError"
        return {"a": Timing((1.0,), 1), "b": Timing((), 0, failed) if failed else Timing((2.0,), 1)}

    assert memory.smallest(work, CPU)[0] == 80
    assert memory.smallest(lambda: {"a": Timing((), 0, "OutOfMemoryError")}, CPU)[0] == 0


def test_a_part_that_fails_loses_no_other(tmp_path, monkeypatch):
    def fails(_):
        yield Measured(text="half of it")
        raise RuntimeError("CUDA error: an illegal memory access")

    monkeypatch.setitem(benchmark.PARTS, "draw", fails)
    monkeypatch.setitem(benchmark.PARTS, "train", lambda _: iter([Measured(text="begun"), Measured(text="done")]))
    with pytest.raises(HaraldError, match="draw: RuntimeError: CUDA error"):
        benchmark.run(runtime(tmp_path), config.tiny(), "one", only="draw,train")
    written = {name: (tmp_path / f"output/benchmark/one/{name}.md").read_text() for name in ("draw", "train")}
    assert written == {"draw": "half of it\n", "train": "done\n"}
    with pytest.raises(ConfigError, match="the part 'drow'"):
        benchmark.run(runtime(tmp_path), config.tiny(), "two", only="drow")


def test_both_training_arms_see_as_many_samples_and_ours_reads_the_references_once(tmp_path):
    made = steps(tmp_path)
    ours, plain = (made.batches[name] for name in ("ours", "plain"))
    train = config.tiny().train
    assert len(ours.targets) == len(plain.targets) == made.samples
    assert len(plain.pairs) == train.targets_per_state * len(ours.pairs)
    assert {len(pair.references) for pair in (*ours.pairs, *plain.pairs)} == {train.max_references}
    assert made.configs["plain"].train.economy == Economy(lora="autocast"), "all is recomputed, nothing compiled"


def test_a_step_is_done_as_the_preset_says_and_the_peer_as_public_trainers_do_it(tmp_path, compiling, monkeypatch):
    made, seen = steps(tmp_path, targets_per_state=2), []
    monkeypatch.setattr(
        training,
        "train_step",
        lambda _, encoder, *rest: seen.append(
            (rest[-1].train, encoder.autocast, torch.are_deterministic_algorithms_enabled())
        ),
    )
    with training.deterministic_algorithms(True):
        for call in (*made.arms().values(), made.other_arms()[training.EAGER]):
            call()
    _, ours, taught, eager = seen
    full = config.full().train
    assert ours[0].economy == taught[0].economy == full.economy and ours[0].recorded == full.recorded
    assert dataclasses.replace(ours[0].economy, compile="off") == eager[0].economy
    assert (taught[0].teacher_weight, ours[0].teacher_weight) == (1.0, 0.0)
    assert [autocast for _, autocast, _ in seen] == [True] * 4, "the peer's LoRA computes in bfloat16, too"
    assert [strict for *_, strict in seen] == [False, True, True, True]


def test_float8_lies_beside_the_weights_that_it_shares(tmp_path):
    made = steps(tmp_path)
    light = made.beside()
    assert light.base.transformer.proj_out.weight is made.base.transformer.proj_out.weight
    before = [p.clone() for p in made.base.transformer.parameters()]
    for model in (light.base, made.base):
        plain(model, "a person")
    with training.economical(light.base, light.encoder, training.with_economy(made.configs["ours"], FLOAT8)):
        pass

    def layers(steps: training.Steps) -> int:
        parts = (steps.base.transformer, steps.base.text_model, steps.encoder)
        return sum(isinstance(layer, Float8Linear) for part in parts for layer in part.modules())

    assert layers(light) > 0 == layers(made)
    assert made.base.texts and not light.base.texts, "what was read in bfloat16 is read anew"
    assert all(map(torch.equal, before, made.base.transformer.parameters()))
    assert trained_parameters(light.encoder)[0] is trained_parameters(made.encoder)[0]


def test_floating_point_operations_grow_with_the_states_alone_and_count_nothing_twice(tmp_path):
    one = steps(tmp_path / "one", states_per_batch=1).flops()
    saving = steps(tmp_path / "two", states_per_batch=2, economy=Economy(1.0, True, 1)).flops()
    assert saving == pytest.approx(2 * one, rel=0.05)


def test_a_picture_of_many_steps_is_calculated_from_two_of_few():
    small, large = Timing((3.0, 3.1), 5), Timing((6.0, 6.1), 7)
    assert at_steps({2: small, 5: large}, 50).seconds == pytest.approx((51.0, 51.1))
    assert at_steps({2: Timing((), 0, "no"), 5: large}, 50).failed == "no"


def test_arms_take_turns_and_one_that_fails_stops_none(monkeypatch):
    said = []

    def fails() -> None:
        said.append("bad")
        raise torch.OutOfMemoryError("CUDA out of memory.\nmore")

    found = in_turn({"a": lambda: said.append("a"), "bad": fails, "b": lambda: said.append("b")}, 2, CPU)
    assert said == ["a", "bad", "b", "a", "b", "a", "b"]
    assert len(found["a"].seconds) == 2 and found["bad"] == Timing((), 0, "OutOfMemoryError: CUDA out of memory.")


def test_an_arm_that_fails_in_a_later_round_says_so_and_leaves_the_others_their_rows():
    calls = []

    def fails_at_last() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("gone")

    found = in_turn({"good": lambda: None, "bad": fails_at_last, "best": lambda: None}, 2, CPU)
    assert found["bad"] == Timing((), 0, "KeyError: 'gone' (round 2)")
    assert all(math.isnan(number) for number in bars.ratio(found["good"], found["bad"]))
    assert not math.isnan(bars.ratio(found["good"], found["best"])[0])
    for samples, more in ((4, ["more"]), (0, [])):
        rows = [bars.row(name, timing, CPU, samples, *more) for name, timing in found.items()]
        assert "| bad | failed: KeyError: 'gone' (round 2) |" in rows[1]
        assert len({row.count("|") for row in rows}) == 1, "as many columns"


def test_bars_are_ratios_of_medians_and_a_new_measurement_keeps_what_it_has_not(tmp_path):
    slow, fast = Timing((3.0, 4.0, 5.0), 1), Timing((1.0, 1.0, 2.0), 1)
    found = {bars.THROUGHPUT: bars.ratio(slow, fast), bars.SHARE: bars.shares(fast, 55, 100.0)}
    assert found == {bars.THROUGHPUT: (4.0, 2.5, 4.0), bars.SHARE: (0.55, 0.275, 0.55)}
    assert all(math.isnan(number) for number in bars.ratio(None, fast))
    rows = {row["name"]: row for row in table.bar_rows(found, HERE, 0)}
    assert rows[bars.THROUGHPUT.name]["met"] and not rows[bars.EDIT.name]["met"]
    file = tmp_path / "rows.json"
    table.merge_into(file, list(rows.values()), HERE, 0, {"train": "old", "draw": "kept"})
    table.merge_into(file, table.bar_rows({}, HERE, 0), HERE, 0, {"train": "new"})
    kept = json.loads(file.read_text())
    assert {row["name"]: row["value"] for row in kept["bars"]}[bars.THROUGHPUT.name] == 4.0
    assert {name: part["text"] for name, part in kept["parts"].items()} == {"train": "new", "draw": "kept"}


def test_rows_of_another_seed_stand_beside_those_of_the_first(tmp_path):
    file = tmp_path / "rows.json"
    for seed, value in ((0, 3.0), (1, 2.0), (0, 4.0)):
        found = {bars.THROUGHPUT: (value, value, value)} | ({bars.EDIT: (6.0, 6.0, 6.0)} if seed else {})
        table.merge_into(file, table.bar_rows(found, HERE, seed), HERE, seed, {})
    rows = json.loads(file.read_text())["bars"]
    assert [(row["seed"], row["name"]) for row in rows] == [(s, bar.name) for s in (0, 1) for bar in bars.BARS]
    assert [row["value"] for row in rows if row["name"] == bars.THROUGHPUT.name] == [4.0, 2.0]
    lines = table.page_text(rows, {}).splitlines()
    assert [line.split("|")[6].strip() for line in lines if bars.THROUGHPUT.name in line] == ["0", "1"]
    for bar in (bars.EDIT, bars.EXACT):  # measured with one seed alone, with none
        assert sum(bar.name in line for line in lines) == 1


def test_random_weights_depend_on_the_seed_alone():
    small = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2], "num_res_blocks": 1, "temperal_downsample": [False]}
    published: Any = SimpleNamespace(config=lambda _: small)
    part: Any = SimpleNamespace(kind="AutoencoderKLQwenImage", folder="vae")

    def drawn(seed: int) -> torch.Tensor:
        model = shapes.random_model(published, part, CPU, torch.bfloat16, seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    first, after = drawn(0), torch.randn(1)
    assert torch.equal(drawn(0), first) and not torch.equal(drawn(1), first)
    assert not torch.equal(torch.randn(1), after), "what others draw goes on"


def test_random_base_has_the_published_sizes():
    base = shapes.random_base(config.full().models.base, torch.device("meta"), torch.bfloat16)
    assert sum(p.numel() for p in base.transformer.parameters()) == 20_430_401_088
    assert {p.dtype for p in base.transformer.parameters()} == {torch.bfloat16} and base.width == 3584
    with pytest.raises(ConfigError, match="not recorded"):
        shapes.random_base(config.tiny().models.base, CPU, torch.float32)

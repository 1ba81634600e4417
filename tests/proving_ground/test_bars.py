import json
import math

import pytest
import torch

from harald.evaluation.accuracy import Score, balanced_accuracy
from harald.evaluation.bar import Origin
from harald.evaluation.paired import loss_in_points, psnr, ratio
from harald.proving_ground.bars import (
    BARS,
    FACES,
    MEGABYTES,
    PSNR,
    SECONDS,
    as_json,
    from_json,
    merged,
    rows,
)
from harald.proving_ground.measure.drawing import numbered_sheet, share
from harald.proving_ground.measure.origin import commit, digest
from harald.proving_ground.measure.scores import agreement, differences
from harald.proving_ground.measure.views import sample
from harald.proving_ground.persons import ATTRIBUTES

HERE, THERE = Origin("here", "abc", "CPU"), Origin("there", "abc", "GPU")


def score(value: float) -> Score:
    return Score(value, value - 0.1, value + 0.1, 7)


def values(part: str, name: str, value: float, origin: Origin = HERE) -> list:
    return [row for row in rows(part, {name: score(value)}, origin) if row.name == name]


@pytest.mark.parametrize(
    ("part", "name", "value", "met"),
    [
        ("judge", "judge: glasses", 0.95, True),
        ("judge", "judge: glasses", 0.9499, False),
        ("judge", "judge: earrings", 0.93, True),
        ("vae", "vae: loss of glasses", 2.0, True),
        ("vae", "vae: loss of glasses", 2.1, False),
        ("vae", "vae: loss of glasses", -1.0, True),
        ("base", "base: glasses", 0.91, False),
        ("base", "base: expression", 0.86, True),
        ("speed", SECONDS, 4.01, False),
        ("size", MEGABYTES, 59.0, True),
    ],
)
def test_value_is_compared_with_its_bar_in_the_right_direction(part, name, value, met):
    (row,) = values(part, name, value)
    assert row.met is met and row.value == value and row.command == "here"


def test_value_that_rounds_to_the_bar_is_compared_as_it_is_written():
    (row,) = values("judge", "judge: glasses", 0.95 - 1e-9)
    assert row.value == 0.95 and row.met


def test_unmeasured_bar_stays_in_as_not_met_and_nothing_becomes_nan():
    made = rows("vae", {PSNR: Score(math.nan, math.nan, math.nan, 0)}, HERE, "no weights")
    assert [row.name for row in made] == [bar.name for bar in BARS["vae"]]
    assert all(row.value is None and row.met is False for row in made)
    assert [row.note for row in made] == ["", *["no weights"] * 3]
    json.dumps(as_json(made, HERE, seed=0), allow_nan=False)


def test_figure_has_no_bar_and_comes_back_from_json():
    made = rows("judge", {"judge: identity": score(0.9)}, HERE, unit="area")
    content = json.loads(json.dumps(as_json(made, HERE, seed=3)))
    assert content["seed"] == 3 and content["command"] == "here"
    (figure,) = content["figures"]
    assert figure["met"] is None and figure["bar"] is None and figure["unit"] == "area"
    assert len(content["bars"]) == len(BARS["judge"]) and from_json(content) == made


def test_rows_of_two_machines_meet_and_each_keeps_its_own_origin():
    on_gpu = [*values("base", "base: hair", 0.97, THERE), *rows("speed", {}, THERE, "on a GPU")]
    table = merged(on_gpu, values("speed", SECONDS, 2.0))
    assert [(row.name, row.device, row.met) for row in table] == [("base: hair", "GPU", True), (SECONDS, "CPU", True)]
    again = merged(table, on_gpu)  # what the GPU cannot measure does not wipe out what the CPU has measured
    assert again == table
    assert merged(table, values("base", "base: hair", 0.5))[0].value == 0.5


def test_sheet_that_is_drawn_anew_is_to_be_counted_anew():
    table = merged(values("faces", FACES, 0.97), rows("faces", {}, HERE, "count"))
    assert [(row.value, row.met, row.note) for row in table] == [(None, False, "count")]


def test_interval_of_a_share_holds_it():
    counted = share(97, 100)
    assert counted.value == 0.97 and counted.low == pytest.approx(0.9155, abs=1e-3) and counted.high < 1
    assert share(100, 100).high == 1.0 and share(0, 100).low == 0.0


def guesses(count: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(-1, 3, (count,), generator=draw)
    wrong = torch.rand(count, generator=draw) < 0.3
    return truth, torch.where(wrong, (truth + 1) % 3, truth), torch.arange(count) // 8


def test_comparisons_agree_with_balanced_accuracy():
    truth, guess, people = guesses()
    plain = balanced_accuracy(guess, truth, people)
    share_of_all = ratio(guess, truth, truth, people)
    assert (share_of_all.value, share_of_all.low, share_of_all.high) == pytest.approx(
        (plain.value, plain.low, plain.high)
    )
    assert share_of_all.count == plain.count == int((truth >= 0).sum())
    loss = loss_in_points(truth, guess, truth, people)
    assert loss.value == pytest.approx(100 * (1 - plain.value))
    assert loss.low == pytest.approx(100 * (1 - plain.high))


def test_comparison_of_a_thing_with_itself_has_no_spread():
    truth, guess, people = guesses()
    assert loss_in_points(guess, guess, truth, people) == Score(0.0, 0.0, 0.0, int((truth >= 0).sum()))
    same = ratio(guess, guess, truth, people)
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)
    hidden = ratio(guess, guess, torch.full_like(truth, -1), people)
    assert math.isnan(hidden.value) and hidden.count == 0


def test_psnr_takes_the_mean_before_the_logarithm():
    errors, people = torch.tensor([0.001, 0.003], dtype=torch.float64), torch.tensor([0, 1])
    found = psnr(errors, people)
    assert found.value == pytest.approx(-10 * math.log10(0.002))
    assert found.low == pytest.approx(-10 * math.log10(0.003)) and found.high == pytest.approx(30)


def test_judge_dislikes_what_is_not_as_described_and_ignores_what_is_hidden():
    from harald.evaluation.judge import Reading

    sure = {name: torch.full((2, len(kinds)), -9.0) for name, kinds in ATTRIBUTES.items()}
    for scores in sure.values():
        scores[:, 0] = 0.0
    labels = torch.zeros(2, len(ATTRIBUTES), dtype=torch.long)
    glasses = list(ATTRIBUTES).index("glasses")
    labels[1, glasses], labels[:, 0] = 1, -1
    reading = Reading(sure, torch.ones(2, len(ATTRIBUTES)), torch.ones(2, 4))
    liked = agreement(reading, labels)
    assert liked.tolist() == pytest.approx([0.0, -9 / (len(ATTRIBUTES) - 1)])
    assert differences(reading.index[0], labels[0]) == ""
    assert differences(reading.index[1], labels[1]) == "glasses: round, seen none"


def test_smaller_sample_is_the_beginning_of_a_larger_one():
    assert sample(0, 80, 10) == sample(0, 80, 40)[:10] and sorted(sample(0, 80, 80)) == list(range(80))
    assert sample(0, 80, 80) != sample(1, 80, 80)


def test_sheet_has_a_numbered_cell_for_every_picture():
    sheet = numbered_sheet(torch.zeros(12, 32, 32, 3, dtype=torch.uint8))
    assert sheet.size == (10 * 46 + 9 * 4, 2 * 46 + 4)


def test_digest_follows_names_and_contents_of_the_models_only(tmp_path):
    (tmp_path / "mini-judge").mkdir()
    (tmp_path / "mini-judge" / "model.safetensors").write_bytes(b"one")
    first = digest(tmp_path)
    (tmp_path / "progress.json").write_text("{}")
    assert digest(tmp_path) == first
    (tmp_path / "mini-encoder").mkdir()
    (tmp_path / "mini-encoder" / "encoder.safetensors").write_bytes(b"not measured there")
    assert digest(tmp_path) == first
    (tmp_path / "mini-judge" / "model.safetensors").write_bytes(b"two")
    assert digest(tmp_path) != first


def test_folder_that_is_no_checkout_has_no_commit(tmp_path):
    assert commit(tmp_path) == "unknown"

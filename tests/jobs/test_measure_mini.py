"""The bars of the small world, measured with models of random weights: every row is there, and no row is made up."""

import json
import shutil

import pytest
from PIL import Image

from harald import cli
from harald.config import tiny
from harald.proving_ground.bars import BARS, FACES, MEGABYTES, PSNR, SECONDS
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import judge
from harald.proving_ground.pretraining.weights import write_untrained

SIZES = ["--states", "4", "--pictures", "5", "--overrides", '{"generate.steps": 2}']


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A complete folder."""
    folder = tmp_path_factory.mktemp("weights")
    pretrain = tiny().pretrain
    assert pretrain is not None
    for stage in ("vae", "vision"):
        write_untrained(folder, stage, 0, pretrain)
    judge.new(ATTRIBUTES, pretrain.side, seed=0, width=4).save_pretrained(folder / judge.FOLDER)
    return folder


@pytest.fixture
def measure(tmp_path, monkeypatch, capsys):
    """Run the job on a folder of weights; gives its exit message, the result and the run's folder."""
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))

    def run(weights, *flags: str, name: str = "m") -> tuple[str, dict, object]:
        folder = tmp_path / "output" / "measure_mini" / name
        try:
            cli.main(
                ["measure_mini", "--preset", "tiny", "--run-name", name, "--weights", str(weights), *SIZES, *flags]
            )
        except SystemExit as stop:
            return str(stop.code), {}, folder
        capsys.readouterr()
        return "", json.loads((folder / "proving_ground.json").read_text()), folder

    return run


def by_name(content: dict) -> dict:
    return {row["name"]: row for row in (*content["bars"], *content["figures"])}


def numbers(content: dict) -> list:
    return [
        (name, row["value"], row["low"], row["high"], row["met"])
        for name, row in by_name(content).items()
        if name != SECONDS
    ]


@pytest.mark.slow
def test_parts_measured_apart_are_the_whole_and_the_same_seed_repeats_it(measure, weights, tmp_path):
    error, whole, folder = measure(weights, "--into", str(tmp_path / "docs" / "copy.json"))
    assert not error
    assert [row["name"] for row in whole["bars"]] == [bar.name for part in BARS.values() for bar in part]
    assert json.loads((tmp_path / "docs" / "copy.json").read_text()) == whole
    table = by_name(whole)
    assert table[SECONDS]["value"] > 0 and table[MEGABYTES]["met"] and table[PSNR]["met"] is False
    assert 0 <= table["base: scene, plain"]["value"] <= 1 and table["judge: identity"]["value"] is not None
    assert table[FACES]["value"] is None and "counted by eye" in table[FACES]["note"]
    html = (folder / "report.html").read_text()
    assert "Reconstructions, the worst" in html and "Drawn from the text, the worst" in html
    assert html.count("data:image/png") == 2 + 2 * 12 - 2 * 4 + 2 * 5 and "http" not in html.split("<body>")[1]

    for part in ("base,faces", "judge", "speed", "vae"):
        error, apart, other = measure(weights, "--only", part, name="apart")
        assert not error
    assert numbers(apart) == numbers(whole)
    assert (other / "faces.png").read_bytes() == (folder / "faces.png").read_bytes()


def test_faces_are_counted_on_the_sheet_that_is_there(measure, weights):
    error, drawn, folder = measure(weights, "--only", "faces")
    assert not error and by_name(drawn)[FACES]["met"] is False
    Image.new("RGB", (8, 8)).save(folder / "faces.png")  # stands for the sheet that was looked at
    before = (folder / "faces.png").read_bytes()
    assert (folder / "faces_real.png").read_bytes() != before
    _, counted, _ = measure(weights, "--only", "faces", "--faces-in-place", "5", "--real-faces-in-place", "4")
    row = by_name(counted)[FACES]
    assert row["value"] == 1.0 and row["met"] and row["low"] < 1 and row["count"] == 5
    assert "of the real views of the same persons and prompts 4 of 5" in row["note"]
    assert (folder / "faces.png").read_bytes() == before
    _, again, _ = measure(weights, "--only", "faces")
    assert by_name(again)[FACES]["value"] is None


def test_parts_without_weights_are_rows_that_fall_short(measure, weights, tmp_path):
    shutil.copytree(weights / "mini-qwen-image" / "vae", tmp_path / "some" / "mini-qwen-image" / "vae")
    error, content, _ = measure(tmp_path / "some")
    assert not error
    table = by_name(content)
    assert len(content["bars"]) == sum(map(len, BARS.values())) and not content["figures"]
    assert table[PSNR]["value"] is not None
    rest = [row for row in content["bars"] if row["name"] != PSNR]
    assert all(row["value"] is None and row["met"] is False and "no weights" in row["note"] for row in rest)


def test_rows_of_other_weights_do_not_meet(measure, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    judge.new(ATTRIBUTES, 64, seed=1, width=4).save_pretrained(other / judge.FOLDER)
    assert not measure(weights, "--only", "speed")[0]
    error, _, _ = measure(other, "--only", "speed")
    assert "exists with another configuration: weights" in error


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--only", "judges"], "did you mean 'judge'?"),
        (["--only", ","], "--only names the part ''"),
        (["--states", "0"], "--states is 0"),
        (["--pictures", "9"], "4 states have 8 views"),
        (["--faces-in-place", "6"], "--faces-in-place is 6, the sheet has 5 pictures"),
        (["--real-faces-in-place", "6"], "--real-faces-in-place is 6, the sheet has 5 pictures"),
        (["--preset", "full"], "has no small models"),
        (["--weights", "no/such/folder"], "no/such/folder does not exist"),
    ],
)
def test_bad_flags_say_what_to_do(measure, weights, flags, says):
    error, _, folder = measure(weights, *flags)
    assert says in error and "\n  fix: " in error
    assert not folder.exists()


def test_judge_of_another_size_of_picture_is_refused(measure, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    judge.new(ATTRIBUTES, 32, seed=0, width=4).save_pretrained(other / judge.FOLDER)
    error, _, _ = measure(other, "--only", "judge")
    assert "32 px" in error and "--stage judge" in error

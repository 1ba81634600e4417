"""From a folder of pictures to a picture of the person, with the commands that a user types; and bad input."""

import json
import shutil

import pytest
from PIL import Image

from harald import cli
from harald.injection.person_file import load_person
from tests.states import write_dataset

TINY = ["--preset", "tiny"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set, a trained encoder and a person file."""
    root = tmp_path_factory.mktemp("root")
    write_dataset(root, states=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARALD_ROOT", str(root))
        cli.main(["train", *TINY, "--run-name", "first", "--steps", "4", "--checkpoint-every", "2"])
        cli.main(
            ["predict_tokens", *TINY, "--run-name", "anna", "--train-run", "first", "--state-id", first_state(root)]
        )
    return root


@pytest.fixture
def call(root, monkeypatch, capsys):
    """Run a job; gives its exit message ('' if it worked) and what it printed."""
    monkeypatch.setenv("HARALD_ROOT", str(root))

    def run(*flags: str, preset: str = "tiny") -> tuple[str, str]:
        capsys.readouterr()
        try:
            cli.main([flags[0], "--preset", preset, *flags[1:]])
        except SystemExit as stop:
            assert stop.code not in (0, None)
            return str(stop.code) + capsys.readouterr().err, ""
        return "", capsys.readouterr().out

    return run


def first_state(root) -> str:
    return sorted(p.name for p in (root / "dataset" / "1").iterdir())[0]


def test_state_and_its_pictures_give_the_same_person(call, root):
    folder = root / "dataset" / "1" / first_state(root)
    pictures = ",".join(str(folder / f"comic_view_0{i}.png") for i in (1, 2))  # the first two of the state
    error, _ = call("predict_tokens", "--run-name", "by-image", "--train-run", "first", "--images", pictures)
    assert not error
    files = [root / "output" / "predict_tokens" / name / "person.safetensors" for name in ("anna", "by-image")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_refined_person_is_another_one_and_the_same_each_time(call, root):
    folder, files = root / "dataset" / "1" / first_state(root), []
    pictures = ",".join(str(folder / f"comic_view_0{i}.png") for i in (1, 2))
    for name in ("refined", "again"):
        flags = ["--images", pictures, "--domain", "comic", "--refine", "2"]
        error, out = call("predict_tokens", "--run-name", name, "--train-run", "first", *flags)
        assert not error and '"refined": "2 steps on 2 pictures"' in out
        files.append(root / "output" / "predict_tokens" / name / "person.safetensors")
    person, plain = load_person(files[0]), load_person(root / "output/predict_tokens/anna/person.safetensors")
    assert files[0].read_bytes() == files[1].read_bytes()
    moved = (person.tokens - plain.tokens).square().mean().sqrt() / plain.tokens.square().mean().sqrt()
    assert 0.005 < moved < 0.05 and person.encoder == plain.encoder


def test_person_changes_the_picture_and_the_same_seed_repeats_it(call, root):
    prompt = "photo of <person> laughing in a park"
    for name in ("one", "two"):
        error, out = call("generate", "--run-name", name, "--person", "anna", "--prompt", prompt, "--count", "2")
        assert not error and out.splitlines()[-1].endswith("report.html")
    one, two = (root / "output" / "generate" / name for name in ("one", "two"))
    assert [p.name for p in sorted(one.glob("*.png"))] == ["seed_0.png", "seed_1.png"]
    assert all((one / p.name).read_bytes() == p.read_bytes() for p in two.glob("*.png"))
    call(
        "generate", "--run-name", "pair", "--person", "a=anna,b=anna", "--prompt", "photo of <person:a> and <person:b>"
    )
    assert (root / "output" / "generate" / "pair" / "seed_0.png").read_bytes() != (one / "seed_0.png").read_bytes()
    html = (one / "report.html").read_text()
    with_person, without = html.split('<img src="')[1:3]
    assert with_person.split('"')[0] != without.split('"')[0]


def test_injection_poc_proves_its_checks_and_lowers_the_loss_at_both_points(call, root):
    error, _ = call(
        "injection_poc",
        "--run-name",
        "poc",
        "--train-run",
        "first",
        "--overrides",
        '{"poc.steps": 30, "generate.steps": 2}',
    )
    assert not error
    folder = root / "output" / "injection_poc" / "poc"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert len(metrics["checks"]) == 4 and all(metrics["checks"].values())
    loss = {arm["name"]: arm["held_out"] for arm in metrics["arms"]}
    assert loss["optimised, output point"] < loss["no tokens"]
    assert loss["optimised, input point"] < loss["no tokens"]
    assert len(list(folder.glob("*.safetensors"))) == 3 and len(list(folder.glob("*_scene_*.png"))) == 5 * 6


def test_manifest_of_check_dataset_stands_for_the_folders(call, root):
    assert not call("check_dataset", "--run-name", "checked")[0]
    flags = ["--steps", "2", "--checkpoint-every", "2"]
    assert not call("train", "--run-name", "scanned", *flags)[0]
    assert not call("train", "--run-name", "listed", *flags, "--overrides", '{"data.manifest": "checked"}')[0]
    one, other = (root / "output" / "train" / name / "metrics.jsonl" for name in ("scanned", "listed"))
    assert one.read_bytes() == other.read_bytes()


def test_doctor_names_what_is_missing_and_the_command_that_mends_it(call, monkeypatch):
    assert not call("doctor")[0]
    monkeypatch.delenv("HUGGINGFACE_TOKEN", raising=False)
    error, _ = call("doctor", preset="full")
    wanted = ["token: HUGGINGFACE_TOKEN is not set", "modal secret create HF_SECRET"]
    wanted += ["base model: Qwen/Qwen-Image", "download_models"]
    assert all(line in error for line in wanted), error


BAD = [
    (["train", "--seed", "-1"], "--seed is -1"),
    (["train", "--steps", "-5"], "-5"),
    (["train", "--run-name", "../../x"], "--run-name is '../../x'"),
    (["train", "--overrides", "{"], "--overrides is not JSON"),
    (["train", "--overrides", '{"train.stepz": 1}'], "did you mean 'steps'?"),
    (["train", "--overrides", '{"train.steps": "many"}'], "train.steps"),
    (["train", "--overrides", '{"encoder.groups": [["all", 4000]]}'], "reserved vocabulary ids"),
    (
        ["train", "--overrides", '{"encoder.groups": [["galsses", 4]]}'],
        "did you mean 'glasses'? One group alone may be",
    ),
    (["train", "--overrides", '{"data.validation_share": 1.0}'], "validation"),
    (["train", "--overrides", '{"train.latents": "none"}'], "no run 'none' of prepare"),
    (["train", "--overrides", '{"models.lora": {"source": "no/lora"}}'], "no/lora"),
    (["train", "--overrides", '{"models.base": {"repo": "no/base", "recipe": ""}}'], "no/base"),
    (
        ["train", "--run-name", "first", "--overrides", '{"train.learning_rate": 0.5}'],
        "train.learning_rate 0.001 -> 0.5",
    ),
    (["injection_poc", "--state-id", "../.."], "'../..'"),
    (["injection_poc", "--state-id", "seed_0"], "seed_0"),
    (["predict_tokens", "--train-run", "first"], "exactly one of the three"),
    (["predict_tokens", "--train-run", "nobody", "--state-id", "seed_1"], "nobody"),
    (["predict_tokens", "--train-run", "first", "--images", "no/such.png"], "no/such.png"),
    (["predict_tokens", "--train-run", "first", "--state-id", "seed_1", "--references", "-1"], "--references is -1"),
    (["predict_tokens", "--train-run", "first", "--state-id", "seed_1", "--refine", "-1"], "--refine is -1"),
    (["predict_tokens", "--person", "anna+anna", "--refine", "2"], "--person 'anna+anna' with --refine 2"),
    (["predict_tokens", "--train-run", "first", "--images", ".", "--domain", "oil"], "--domain is 'oil'"),
    (
        ["predict_tokens", "--images", "dataset/1/STATE/comic_view_01.png", "--domain", "oil", "--refine", "1"],
        "of domain 'oil'",
    ),
    (["predict_tokens", "--overrides", '{"refine.steps": -1}', "--images", "."], "refine.steps is -1"),
    (["generate", "--prompt", "a park", "--person", "anna"], "has no placeholder"),
    (["generate", "--prompt", "", "--person", "anna"], "the prompt is empty"),
    (["generate", "--prompt", "<person>", "--person", "nobody"], "there is no person file"),
    (["generate", "--prompt", "<person>"], "--person is empty"),
    (["generate", "--prompt", "<person:ben>", "--person", "anna"], "no person file for <person:ben>"),
    (["generate", "--prompt", "<person> " + "park " * 1500, "--person", "anna"], "at most 1024"),
    (["generate", "--prompt", "<person>", "--person", "anna", "--count", "0"], "--count is 0"),
    (["evaluate", "--train-run", "../first"], "'../first'"),
    (["evaluate", "--train-run", "first", "--identity-run", "none"], "no run 'none' of train"),
    (["evaluate", "--train-run", "first", "--weights", "."], "holds no mini-judge"),
    (
        ["evaluate", "--train-run", "first", "--overrides", '{"evaluate.main_references": 3}'],
        "evaluate.main_references 3",
    ),
    (["verify", "--train-run", "first", "--steps", "0"], "--steps is 0"),
    (["prepare", "--overrides", '{"data.image_size": 50}'], "data.image_size is 50"),
]


@pytest.mark.parametrize(("flags", "says"), BAD, ids=[f"{f[0]}: {says[:30]}" for f, says in BAD])
def test_bad_input_says_what_and_what_to_do(call, root, flags, says):
    error, _ = call(*(flag.replace("STATE", first_state(root)) for flag in flags))
    assert error.startswith("error: "), error
    assert says in error and "\n  fix: " in error
    assert "Traceback" not in error


def test_damaged_pictures_and_person_files_are_refused_by_name(call, root, tmp_path):
    whole = (root / "output" / "predict_tokens" / "anna" / "person.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-50])
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    assert (
        "cut.safetensors" in call("generate", "--prompt", "<person>", "--person", str(tmp_path / "cut.safetensors"))[0]
    )
    for name in ("text.png", "cut.png"):
        error, _ = call("predict_tokens", "--train-run", "first", "--images", str(tmp_path / name))
        assert error.startswith("error: ") and name in error


def test_nothing_is_lost_by_a_refused_start(call, root):
    before = (root / "output" / "train" / "first" / "metrics.jsonl").read_bytes()
    assert call("train", "--run-name", "first", "--seed", "3")[0]
    assert (root / "output" / "train" / "first" / "metrics.jsonl").read_bytes() == before


def test_empty_root_says_where_the_data_belongs(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    shutil.rmtree(tmp_path / "dataset", ignore_errors=True)
    for job in ("train", "injection_poc", "prepare", "check_dataset"):
        error, _ = call(job)
        assert error.startswith("error: ") and "fix: " in error and str(tmp_path) in error


def test_root_that_cannot_be_written_is_named(call, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path / "file"))
    error, _ = call("demo_dataset")
    assert error.startswith("error: the output folder") and "HARALD_ROOT" in error

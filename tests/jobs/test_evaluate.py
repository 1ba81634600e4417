"""The evaluation from end to end, with models of random weights: everything is drawn, judged and reported."""

import json
import re
from pathlib import Path

import pytest

from harald import cli, config
from harald.data.index import states_for
from harald.data.manifest import split_of
from harald.data.people import PEOPLE
from harald.evaluation.arms import ARMS, INVERSION, REAL, REFINED
from harald.evaluation.state_bars import BARS
from harald.proving_ground.persons import ATTRIBUTES
from harald.proving_ground.pretraining import judge
from tests.states import write_dataset

GROUPS = config.tiny().encoder.groups
RUNS = (("first", 2, "same_state"), ("faces", 2, "other_state"), ("short", 1, "other_state"))
FEW = {"generate.steps": 2, "evaluate.states": 2, "evaluate.inversion_states": 1, "evaluate.inversion_steps": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set, an encoder of two steps, a judge of random weights."""
    root = tmp_path_factory.mktemp("root")
    runtime = write_dataset(root, states=5, held_out=2)
    names, data = (state.state_id for state in states_for(runtime, config.tiny())), config.tiny().data
    twins = [f"{name},anna" for name in names if split_of(name, data) == "train"]
    (root / "dataset" / "1" / PEOPLE).write_text("\n".join(["state_id,person", *twins]) + "\n")
    judge.new(ATTRIBUTES, 64, seed=0, width=4).save_pretrained(root / "weights" / judge.FOLDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARALD_ROOT", str(root))
        for name, steps, targets in RUNS:
            asked = json.dumps({"train.targets": targets, "train.steps": steps})
            cli.main(["train", "--preset", "tiny", "--run-name", name, "--overrides", asked])
    return root


@pytest.fixture
def evaluate(root, monkeypatch, capsys):
    monkeypatch.setenv("HARALD_ROOT", str(root))

    def run(name: str, *flags: str, **overrides) -> Path:
        few = json.dumps(FEW | overrides)
        shared = ["--preset", "tiny", "--train-run", "first", "--run-name", name, "--overrides", few]
        cli.main(["evaluate", *shared, *flags])
        folder = root / "output" / "evaluate" / name
        assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")
        return folder

    return run


def embedded(html: str) -> None:
    assert "data:image/png" in html and "http" not in html.split("<body>")[1]


@pytest.mark.slow
def test_synthetic_persons_are_judged_in_every_arm_and_the_bars_go_where_they_are_asked(evaluate, root):
    flags = ["--weights", str(root / "weights"), "--identity-run", "faces", "--into", str(root / "docs" / "state.json")]
    folder = evaluate("persons", *flags, **{"refine.steps": 1, "evaluate.hiding_states": 1})
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["arms"]) == set(ARMS) and not metrics["not measured"]
    assert metrics["source"] == "proving_ground" and metrics["states"] == 4 and metrics["cells"] == 16
    assert (metrics["encoder"], metrics["identity"]) == ("first/step_00000002", "faces/step_00000002")
    assert metrics["arms"][REFINED]["override"]["count"] == metrics["arms"]["ours"]["override"]["count"] > 0
    assert metrics["arms"]["identity-only tokens"]["state kept"]["count"] == 16
    assert metrics["arms"][INVERSION]["state kept"]["count"] == 4 and metrics["arms"][REAL]["state kept"]["count"] == 16
    assert set(metrics["attributes"]) | set(metrics["prompt"]) == set(ATTRIBUTES)
    assert set(metrics["references"]) == {"1", "4"} and len(metrics["domains"]) == 4
    assert metrics["arms"]["ours"]["look-alike test"]["count"] == 8
    hidden = metrics["hidden by one reference"]
    assert set(hidden) == {"hair_colour", "necklace"} and all(row["gain"]["count"] >= 1 for row in hidden.values())
    content = json.loads((root / "docs" / "state.json").read_text())
    assert [row["name"] for row in content["bars"]] == [bar.name for bar in BARS]
    assert {row["seed"] for row in content["bars"]} == {0} and content["seed"] == 0
    embedded((folder / "report.html").read_text())
    assert set(metrics["groups"]["glasses"]) == {"ours", *(f"without {g}" for g, _ in GROUPS), "no tokens"}
    assert metrics["groups"]["hair"]["ours"] == metrics["attributes"]["hair"]["ours"]
    assert metrics["pictures"] < 16 * (len(ARMS) + 3 + len(GROUPS))  # what two arms ask for is drawn once


@pytest.mark.parametrize(("rival", "said"), [("first", "keeps the state too"), ("short", "1 steps, ours for 2")])
def test_rival_that_keeps_the_state_or_was_trained_for_less_is_refused(evaluate, rival, said):
    with pytest.raises(SystemExit, match=said):
        evaluate("unfair", "--identity-run", rival)


def test_rival_may_be_an_exported_encoder(evaluate, root):
    cli.main(["export_encoder", "--preset", "tiny", "--train-run", "faces", "--run-name", "faces"])
    rival = root / "output" / "export_encoder" / "faces" / "repository"
    small = {"evaluate.references": [1], "evaluate.main_references": 1, "evaluate.inversion_states": 0}
    flags = ["--weights", str(root / "weights"), "--identity-run", str(rival)]
    metrics = json.loads((evaluate("exported", *flags, **small) / "metrics.json").read_text())
    assert re.fullmatch(r"repository@[0-9a-f]{12}", metrics["identity"])
    assert metrics["arms"]["identity-only tokens"]["state kept"]["count"] == 16


def test_same_seed_gives_the_same_bytes(evaluate, root):
    small = {"evaluate.views": 4, "evaluate.references": [1], "evaluate.main_references": 1, "evaluate.look_alikes": 0}
    small |= {"evaluate.inversion_states": 0, "evaluate.mean_states": 1, "evaluate.groups": False}
    one, again = (evaluate(name, "--weights", str(root / "weights"), **small) for name in ("one", "again"))
    for file in ("metrics.json", "config.json", "inputs.json"):
        assert (one / file).read_bytes() == (again / file).read_bytes()
    assert json.loads((one / "metrics.json").read_text())["groups"] == {}


@pytest.mark.slow
def test_judge_that_answers_nothing_readable_is_reported_and_fails_nothing(evaluate):
    folder = evaluate("dataset", "--source", "dataset", **{"evaluate.inversion_states": 0})
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["unreadable"] == {"drawn": 1.0, "real": 1.0}
    assert all(row["twin test"]["value"] is None for row in metrics["arms"].values())
    assert metrics["loss"]["no tokens"]["worse by"]["value"] is not None
    assert set(metrics["not measured"]) == {"identity-only tokens", REFINED, INVERSION}
    rows = json.loads((folder / "bars.json").read_text())["bars"]
    assert [row["name"] for row in rows if row["met"]] in ([], ["copy-paste: drawn minus real"])
    html = (folder / "report.html").read_text()
    embedded(html)
    assert "could not be measured" in html and "100.0 % of its answers about drawn pictures" in html


def test_encoder_of_another_size_and_point_than_the_presets_is_judged_as_it_is(evaluate, root):
    small = {"evaluate.views": 4, "evaluate.references": [1], "evaluate.main_references": 1, "evaluate.look_alikes": 0}
    small |= {"evaluate.inversion_states": 1, "evaluate.mean_states": 1}
    other = {"injection.point": "input", "encoder.groups": [["face", 2], ["hair", 3]]}
    own, odd = (
        evaluate(n, "--weights", str(root / "weights"), **o) for n, o in (("own", small), ("odd", small | other))
    )
    assert (own / "metrics.json").read_bytes() == (odd / "metrics.json").read_bytes()

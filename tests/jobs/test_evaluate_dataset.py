"""From Qwen3-VL's written answers to every table: recorded answers about pictures whose grey says what they show."""

import json
import re
from html import unescape

import pytest
import torch
from PIL import Image

from harald import cli, config
from harald.data.manifest import split_of
from harald.evaluation.arms import IDENTITY, INVERSION, NOTHING, OTHER, OURS, REAL, REFINED
from harald.evaluation.override import WORDS
from harald.evaluation.questions import questions
from harald.evaluation.vlm_judge import VlmJudge
from harald.jobs import evaluate as job
from tests.models import CPU, FLOAT, cache
from tests.states import write_dataset

ASKED = questions(("comic", "photo"))
STEP, NOBODY = 8, 0  # of grey, from one kind of picture to the next; the kind that shows nobody in particular
DRAWN = {"generate.steps": 2, "evaluate.states": 2, "evaluate.inversion_states": 0, "evaluate.mean_states": 1}
ANSWERS = {
    NOBODY: {"glasses": "square", "beard": "hidden"},
    1: {"hair": "long", "glasses": "Round.", "beard": "none", "earrings": "hidden"},
    2: {"hair": "bob", "glasses": "none", "beard": "none", "earrings": "hidden"},
}


class Recorded:
    """What Qwen3-VL would write: the answer to the question in the chat, about the kind of each picture."""

    def __init__(self, judge: VlmJudge, answers: dict[int, dict[str, str]]):
        self.model, self.tokenizer, self.answers = judge.model, judge.tokenizer, answers
        self.config, self.dtype, self.device = judge.model.config, judge.model.dtype, judge.model.device

    def generate(self, input_ids, pixel_values, image_grid_thw, **_):
        chat = self.tokenizer.decode(input_ids[0])
        (name,) = (name for name, question in ASKED.items() if question.text in chat)
        patches = pixel_values.split(image_grid_thw.prod(1).tolist())
        kinds = [round((patch.float().mean().item() / 2 + 0.5) * 255 / STEP) for patch in patches]
        given = [self.answers[kind].get(name, "I cannot tell") + "<|im_end|>" for kind in kinds]
        written = self.tokenizer(given, padding=True, return_tensors="pt").input_ids
        return torch.cat([input_ids, written], 1)


def grey(kind: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (STEP * kind,) * 3)


def drawn_as(answers, kinds):
    """In place of the base model: pictures of the state whose tokens are in the prompt, and of a wish without any."""

    def draw_all(base, requests, table, config, told, folder):
        return {request: grey(kind(request)) for request in sorted(set(requests))}

    def kind(request) -> int:
        if named := re.search(r"seed_\d+", request.tokens):
            return kinds[named[0]]
        for name, classes in WORDS.items():
            for word, said in classes.items():
                if found := re.search(said.replace("{}", r"(\w+)"), request.text):
                    answers[len(answers)] = {name: word, **({"hair_colour": found[1]} if found.groups() else {})}
                    return len(answers) - 1
        return NOBODY

    return draw_all


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The run's folder: two held-out states of flat grey, seen by recorded answers."""
    root, answers = tmp_path_factory.mktemp("root"), dict(ANSWERS)
    write_dataset(root, states=4, held_out=2)
    held_out = [p for p in (root / "dataset/1").glob("seed_*") if split_of(p.name, config.tiny().data) == "held_out"]
    kinds = {folder.name: kind for kind, folder in enumerate(sorted(held_out), 1)}
    for folder in held_out:
        for file in folder.glob("*.png"):
            grey(kinds[folder.name]).save(file)
    real = VlmJudge.load(cache(), config.tiny().models.encoder, ASKED, 64, 4, CPU, FLOAT)
    recorded = VlmJudge(Recorded(real, answers), real.tokenizer, real.processor, ASKED, 64, batch=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARALD_ROOT", str(root))
        patch.setattr(VlmJudge, "load", lambda *_: recorded)
        patch.setattr(job, "draw_all", drawn_as(answers, kinds))
        shared = ["--preset", "tiny", "--run-name", "one"]
        cli.main(["train", *shared, "--steps", "1"])
        cli.main(["evaluate", *shared, "--train-run", "one", "--source", "dataset", "--overrides", json.dumps(DRAWN)])
    return root / "output/evaluate/one"


def test_answers_about_the_state_become_every_table(evaluated):
    metrics = json.loads((evaluated / "metrics.json").read_text())
    arms = {arm: {name: score["value"] for name, score in row.items()} for arm, row in metrics["arms"].items()}
    assert metrics["states"] == 2 and metrics["cells"] == 8
    assert arms[OURS]["twin test"] == arms[REAL]["twin test"] == 1.0 and arms[OTHER]["twin test"] == 0.0
    assert arms[NOTHING]["twin test"] == 0.5, "it shows neither the one's glasses nor the other's"
    assert arms[OURS]["share of the ceiling"] == arms[OURS]["state kept"] == 1.0
    assert metrics["attributes"]["glasses"][OURS]["value"] == 1.0 > metrics["attributes"]["glasses"][NOTHING]["value"]
    assert arms[OURS]["invented"] == 0.0
    assert arms[NOTHING]["invented"] == pytest.approx(1 / 3), "glasses on the bare face; a hidden beard is none"
    assert arms[OURS]["override"] == 0.0 and arms[NOTHING]["override"] == 1.0, "words win where no tokens are"
    assert metrics["attributes"]["earrings"][OURS]["value"] is None, "no view shows them"
    assert set(metrics["not measured"]) == {IDENTITY, REFINED, INVERSION}


def test_report_says_what_was_found(evaluated):
    html = unescape((evaluated / "report.html").read_text())
    assert "<b>100.0 %</b>" in html and "hair bob, not long" in html
    assert all(f"<b>{arm}</b>" in html for arm in (OURS, NOTHING, OTHER)) and " instead</figcaption>" in html
    rows = {row["name"]: row for row in json.loads((evaluated / "bars.json").read_text())["bars"]}
    assert rows["twin test"]["met"] and rows["state kept: glasses"]["met"] and not rows["override"]["met"]
    assert rows["identity against look-alikes"]["value"] is None and rows["identity against look-alikes"]["note"]

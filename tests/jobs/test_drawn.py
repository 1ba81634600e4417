"""What the shipped small models draw of persons that no training has seen, as the shipped judge reads it: what
`generate` promises, one test for each promise. On a CPU, with a third of the preset's steps.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImagePipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import Tensor

from harald import cli, config, hub, settings
from harald.evaluation.panel import NONE, VIEW_ATTRIBUTES, Panel
from harald.evaluation.seen import Classifier, Seen
from harald.proving_ground.measure.models import load_judge
from harald.proving_ground.mini_models import SHIPPED
from harald.proving_ground.panel import held_out_panel

pytestmark = pytest.mark.slow

VIEW = "portrait, with a neutral face, facing the camera, in a studio"
SEED = 0
STEPS = {"generate.steps": 6}
FEW = {"evaluate.states": 6, "evaluate.look_alikes": 0, "evaluate.views": 8, "pretrain.workers": 1}
HAIR, WORN = ("hair", "hair_colour"), ("glasses", "beard", "earrings", "headwear", "makeup")


@dataclass(frozen=True)
class World:
    """Six persons, p0 to p5, whose files predict_tokens made from four photos each."""

    root: Path
    panel: Panel
    judge: Classifier

    @property
    def people(self) -> range:
        return range(len(self.panel.states))

    def photos(self, person: int) -> list[str]:
        return [str(view.image) for view in self.panel.states[person].in_domain("photo")]

    def job(self, job: str, name: str, *flags: str) -> Path:
        """The folder of its run."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HARALD_ROOT", str(self.root))
            cli.main([job, "--preset", "mini", "--run-name", name, *flags])
        return self.root / "output" / job / name

    def predict(self, name: str, pictures: list[str]) -> None:
        self.job("predict_tokens", name, "--images", ",".join(pictures))

    def generate(self, name: str, persons: dict[str, str], prompts: list[str], *flags: str, **overrides) -> list[Path]:
        """The pictures of a run, prompt by prompt. persons: name in the prompts -> file."""
        order = [
            "--person",
            ",".join(f"{key}={file}" for key, file in persons.items()),
            "--prompt",
            json.dumps(prompts),
        ]
        return sorted(
            self.job("generate", name, "--overrides", json.dumps(STEPS | overrides), *order, *flags).glob("*.png")
        )

    def each(self, name: str, people: Sequence[int], *flags: str, words: str = "", **overrides) -> list[Path]:
        """The same picture of several persons, one after another. words: behind the person."""
        prompts = [f"photo of <person:p{number}>{words}, {VIEW}" for number in people]
        return self.generate(name, {f"p{n}": f"p{n}" for n in people}, prompts, *flags, **overrides)

    def see(self, pictures: list[Path]) -> Seen:
        return self.judge.see([Image.open(picture) for picture in pictures])

    def truth(self, people: Sequence[int]) -> Tensor:
        """[n, A] of what their views show, HIDDEN where none does."""
        return self.panel.looks()[list(people)]

    def column(self, attribute: str) -> int:
        return list(self.panel.attributes).index(attribute)

    def right(self, seen: Seen, people: Sequence[int], *attributes: str, worn: bool = False) -> float:
        """Share of what the judge reads as the truth has it. worn: only of what somebody does wear."""
        hits = []
        for name in attributes:
            said, truth = seen.said[:, self.column(name)], self.truth(people)[:, self.column(name)]
            bare = list(self.panel.attributes[name]).index(NONE) if worn else -1
            shown = (truth >= 0) & (truth != bare)
            hits.append((said == truth)[shown])
        return float(torch.cat(hits).double().mean())

    def margin(self, seen: Seen, row: int, person: int) -> float:
        """How much surer the judge is of the person's classes than of the best other ones, mean over the state."""
        margins = []
        for name in self.state:
            label, scores = int(self.truth([person])[0, self.column(name)]), seen.scores[name][row]
            if label >= 0:
                margins.append(float(scores[label] - torch.cat([scores[:label], scores[label + 1 :]]).max()))
        return sum(margins) / len(margins)

    @property
    def state(self) -> list[str]:
        return [name for name in self.panel.attributes if name not in VIEW_ATTRIBUTES]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root, mini = tmp_path_factory.mktemp("root"), settings.resolve("mini", SEED, json.dumps(FEW))
    judge = Classifier(load_judge(SHIPPED, config.mini().data.image_size))
    made = World(root, held_out_panel(mini, root / "pictures"), judge)
    for person in made.people:
        made.predict(f"p{person}", made.photos(person))
    return made


@pytest.fixture(scope="module")
def drawn(world) -> dict[str, list[Path]]:
    """Everybody as predicted, in both domains."""
    prompts = [f"<person:p{number}>, {VIEW}" for number in world.people]
    made = world.generate("all", {f"p{n}": f"p{n}" for n in world.people}, prompts, "--domain", "photo,comic")
    return {domain: [path for path in made if f"_{domain}_" in path.name] for domain in ("photo", "comic")}


@pytest.fixture(scope="module")
def nobody(world) -> Seen:
    """The photo without tokens."""
    return world.see(world.each("nobody", [0], "--strength", "0"))


def test_person_is_drawn_as_the_pictures_show_them_and_not_without_tokens(world, drawn, nobody):
    for pictures in drawn.values():
        seen = world.see(pictures)
        for attribute in (*HAIR, *WORN):
            assert world.right(seen, world.people, attribute) > 0.8, attribute
        assert world.right(seen, world.people, *world.state) > 0.95
        assert min(world.margin(seen, person, person) for person in world.people) > 10
    assert max(world.margin(nobody, 0, person) for person in world.people) < 5


def test_domain_is_drawn_as_asked_for(world, drawn):
    for domain, pictures in drawn.items():
        said = world.see(pictures).said[:, world.column("domain")].tolist()
        assert {world.panel.attributes["domain"][label] for label in said} == {domain}


def test_every_prompt_is_followed_with_every_seed_and_the_person_stays(world):
    views = {("beach", "smiling", "front"): "smiling, facing the camera, on a beach"}
    views[("library", "angry", "left")] = "angry, turned to the left, in a library"
    prompts = [f"photo of <person:p4>, portrait, {words}" for words in views.values()]
    pictures = world.generate("views", {"p4": "p4"}, prompts, "--seeds", "1,2")
    assert len({picture.read_bytes() for picture in pictures}) == 4
    seen = world.see(pictures)
    for name, wanted in zip(("scene", "expression", "pose"), zip(*views, strict=True), strict=True):
        said = [world.panel.attributes[name][label] for label in seen.said[:, world.column(name)]]
        assert said == [wanted[0], wanted[0], wanted[1], wanted[1]]
    assert world.right(seen, [4] * 4, *world.state) > 0.9


def test_dropped_group_is_gone_and_the_others_stay(world):
    """Headwear is in the face's tokens, too, and make-up in headwear's."""
    people = [0, 1, 4, 5]  # three wear glasses, two a beard, all of them jewellery
    for gone, stay in (
        (("glasses", "earrings"), ("beard", "necklace")),
        (("beard", "necklace"), ("glasses", "earrings")),
    ):
        bare = world.see(world.each(f"no_{gone[0]}", people, "--drop", ",".join(gone)))
        assert world.right(bare, people, *gone, worn=True) < 0.2
        assert world.right(bare, people, *stay, "headwear", "makeup", *HAIR) > 0.9
    bare = world.see(world.each("bareheaded", people, "--drop", "headwear,face"))
    assert world.right(bare, people, "headwear", worn=True) < 0.4
    kept = world.see(world.each("face_and_hair", people, "--keep", "face,hair"))
    assert world.right(kept, people, "glasses", "beard", "earrings", "necklace", worn=True) < 0.4
    assert world.right(kept, people, *HAIR) > 0.8


def test_other_clothes_are_drawn_by_words_and_the_rest_of_the_person_stays(world, drawn):
    people = [0, 4]  # in green and blue
    both = world.each("red", people, words=", wearing a red jacket", **{"generate.words_win": False})
    silent = world.each("red_alone", people, "--drop", "outfit", words=", wearing a red jacket")
    worded = world.each("red_wins", people, words=", wearing a red jacket")
    before, mixed, alone = (red(pictures) for pictures in ([drawn["photo"][n] for n in people], both, silent))
    assert before < 0.05 and mixed > 0.3 and alone > mixed
    assert [path.read_bytes() for path in worded] == [path.read_bytes() for path in silent], "words win unasked"
    for pictures in (both, silent):
        assert world.right(world.see(pictures), people, *HAIR, *WORN) > 0.9


def test_another_hair_style_is_drawn_by_words(world):
    people, style = [0, 1, 4, 5], world.column("hair")
    wanted = list(world.panel.attributes["hair"]).index("afro")
    assert wanted not in world.truth(people)[:, style]
    seen = world.see(world.each("afro", people, words=" with a black afro"))
    assert (seen.said[:, style] == wanted).double().mean() > 0.7
    assert world.right(seen, people, "glasses", "beard", "makeup") > 0.9
    report = (world.root / "output/generate/afro/report.html").read_text()
    assert "words win, left out: hair of &lt;p0&gt;." in report
    kept = world.see(world.each("no_afro", people, words=" with a black afro", **{"generate.words_win": False}))
    assert (kept.said[:, style] == wanted).double().mean() < 0.3


def test_other_glasses_are_drawn_by_words_and_the_rest_of_the_person_stays(world):
    people, frames = [0, 1, 4, 5], world.column("glasses")
    wanted = list(world.panel.attributes["glasses"]).index("square")
    seen = world.see(world.each("square", people, words=" with square red glasses"))
    assert (seen.said[:, frames] == wanted).double().mean() == 1
    assert world.right(seen, people, *HAIR, "beard", "earrings", "headwear") > 0.9


def test_more_strength_makes_the_judge_surer_of_the_person(world, drawn, nobody):
    people = [2, 4]
    weak = world.see(world.each("weak", people, "--strength", "0.3"))
    predicted = world.see([drawn["photo"][person] for person in people])
    margins = [[world.margin(seen, row, n) for row, n in enumerate(people)] for seen in (weak, predicted)]
    none = [world.margin(nobody, 0, person) for person in people]
    assert sum(none) < 0 < sum(margins[0]) < sum(margins[1])
    strong = world.each("strong", people, "--strength", "1.5")
    assert world.right(world.see(strong), people, *world.state) > 0.95
    for picture, person in zip(strong, people, strict=True):
        assert picture.read_bytes() != drawn["photo"][person].read_bytes()


def test_mix_looks_like_the_person_that_it_is_mostly_made_of(world):
    for name, mix, most, least in (("mix1", "p0*0.9+p2*0.1", 0, 2), ("mix2", "p0*0.1+p2*0.9", 2, 0)):
        seen = world.see(world.generate(name, {"x": mix}, [f"photo of <person:x>, {VIEW}"]))
        assert world.margin(seen, 0, most) > 0 > world.margin(seen, 0, least)


def test_mean_of_files_of_one_person_keeps_more_than_one_of_them(world):
    people, prompts = [4, 5], [f"photo of <person:p{n}>, {VIEW}" for n in (4, 5)]
    for person in people:
        one, two, *_ = world.photos(person)
        world.predict(f"one{person}", [one])
        world.predict(f"two{person}", [two])
        world.job("predict_tokens", f"mean{person}", "--person", f"one{person}+two{person}")
    seen = {
        kind: world.see(world.generate(kind, {f"p{n}": f"{kind}{n}" for n in people}, prompts))
        for kind in ("one", "mean")
    }
    assert world.right(seen["mean"], people, *world.state) > max(0.95, world.right(seen["one"], people, *world.state))


def test_style_lora_changes_its_own_domain_and_keeps_the_person(world, drawn):
    write_lora(world.root / "hf_cache" / "style.safetensors")
    people, prompts = [0, 4], [f"<person:p{n}>, {VIEW}" for n in (0, 4)]
    made = world.generate(
        "styled", {f"p{n}": f"p{n}" for n in people}, prompts, "--domain", "photo,comic",
        **{"models.lora": {"source": "style.safetensors"}},
    )  # fmt: skip
    before = {domain: [pictures[n] for n in people] for domain, pictures in drawn.items()}
    styled = {domain: [path for path in made if f"_{domain}_" in path.name] for domain in drawn}
    assert [path.read_bytes() for path in styled["photo"]] == [path.read_bytes() for path in before["photo"]]
    changes = [np.abs(pixels(a) - pixels(b)).mean() for a, b in zip(styled["comic"], before["comic"], strict=True)]
    assert min(changes) > 2  # of 255
    assert world.right(world.see(styled["comic"]), people, *world.state) > 0.9


def test_same_order_gives_the_same_bytes(world, drawn):
    again = world.generate("again", {"p0": "p0"}, [f"<person:p0>, {VIEW}"], "--domain", "photo,comic")
    assert [path.read_bytes() for path in again] == [drawn[domain][0].read_bytes() for domain in ("comic", "photo")]


def pixels(picture: Path) -> np.ndarray:
    return np.asarray(Image.open(picture).convert("RGB")).astype(float)


def red(pictures: list[Path]) -> float:
    """Share of red among the pixels where the clothes are."""
    clothes = np.stack([pixels(picture)[116:, 16:112] for picture in pictures])
    return float((clothes[..., 0] > clothes[..., 1:].max(-1) + 60).mean())


def write_lora(file: Path) -> None:
    """Random, of a strength that changes a picture without tearing it."""
    pipeline = hub.load(QwenImagePipeline, file.parent, config.mini().models.base, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline.transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(pipeline.transformer).items()}
    QwenImagePipeline.save_lora_weights(file.parent, transformer_lora_layers=layers, weight_name=file.name)

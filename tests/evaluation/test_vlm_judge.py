"""The judge of pictures whose truth nobody knows: the real classes at tiny sizes, and recorded answers."""

import functools
from dataclasses import replace

import pytest
import torch
from PIL import Image

from harald import config
from harald.data.index import states_for
from harald.errors import DatasetError
from harald.evaluation.dataset_panel import dataset_panel, held_out
from harald.evaluation.panel import HIDDEN, UNREADABLE
from harald.evaluation.questions import questions
from harald.evaluation.vlm_judge import VlmJudge
from tests.models import CPU, FLOAT, cache
from tests.states import write_dataset

ASKED = questions(("comic", "photo"))
NAMES = list(ASKED)


@functools.cache
def loaded() -> VlmJudge:
    return VlmJudge.load(cache(), config.tiny().models.encoder, ASKED, 64, 4, CPU, FLOAT)


class Recorded:
    """Plays back what generate() wrote: the answer to the question that the chat holds, for each of its pictures."""

    def __init__(self, judge: VlmJudge, answers: dict[str, list[str]]):
        self.model, self.tokenizer, self.answers = judge.model, judge.tokenizer, answers
        self.config, self.dtype, self.device = judge.model.config, judge.model.dtype, judge.model.device
        self.read = dict.fromkeys(answers, 0)

    def generate(self, input_ids, pixel_values, **others):
        chat = self.tokenizer.decode(input_ids[0])
        (name,) = (name for name, question in ASKED.items() if question.text in chat)
        assert chat.endswith("<|im_end|>\n<|im_start|>assistant\n") and chat.count("<|vision_start|>") == 1
        assert others["do_sample"] is False and len(others["image_grid_thw"]) == len(input_ids)
        given = self.answers.get(name, ["?"] * 99)[self.read.get(name, 0) :][: len(input_ids)]
        self.read[name] = self.read.get(name, 0) + len(input_ids)
        written = self.tokenizer([f"{text}<|im_end|>" for text in given], padding=True, return_tensors="pt").input_ids
        return torch.cat([input_ids, written], 1)


def recorded(**answers: list[str]) -> VlmJudge:
    one = loaded()
    return VlmJudge(Recorded(one, answers), one.tokenizer, one.processor, ASKED, 64, batch=4)


def picture(colour: str = "grey") -> Image.Image:
    return Image.new("RGB", (80, 60), colour)


def test_question_offers_its_answers_and_reads_nothing_else():
    glasses, earrings = ASKED["glasses"], ASKED["earrings"]
    assert glasses.text == "Does the person wear glasses? Answer with one of: none, round, square, sunglasses."
    assert [glasses.read(text) for text in ("none", " Round.\n", "SUNGLASSES")] == [0, 1, 3]
    for text in ("", "round glasses", "yes", "none, round", "hidden"):
        assert glasses.read(text) == UNREADABLE
    assert earrings.text.endswith("drops, hidden.") and earrings.read("hidden") == HIDDEN


def test_recorded_answers_become_classes_and_votes():
    judge = recorded(glasses=["round", "None.", "I see round glasses", "sunglasses", "square"], earrings=["hidden"] * 5)
    seen = judge.see([picture()] * 5)
    assert seen.said[:, NAMES.index("glasses")].tolist() == [1, 0, UNREADABLE, 3, 2]
    assert seen.said[:, NAMES.index("earrings")].tolist() == [HIDDEN] * 5
    assert seen.scores["glasses"].tolist()[:3] == [[-1, 0, -1, -1], [0, -1, -1, -1], [0, 0, 0, 0]]
    assert not seen.scores["earrings"].any() and seen.identity is None
    assert (seen.said[:, NAMES.index("hair")] == UNREADABLE).all()


def test_random_weights_answer_nothing_that_can_be_read_and_the_picture_reaches_them():
    judge = loaded()
    assert not [name for name, _ in judge.model.named_parameters() if "lora" in name], "the judge is as published"
    assert (judge.see([picture(), picture("red")]).said == UNREADABLE).all()
    chats = [judge._chat(ASKED["pose"].text, [picture(colour)]) for colour in ("grey", "red")]
    with torch.no_grad():
        one, other = (judge.model(**chat).logits for chat in chats)
    assert not torch.allclose(one, other)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    return states_for(write_dataset(tmp_path_factory.mktemp("root"), states=3, held_out=2), config.tiny())


def test_truth_is_the_majority_where_a_view_shows_it_and_the_domain_is_the_files(states):
    chosen = held_out(states, config.tiny())
    views = len(chosen[0].views)
    first = ["round", "round", "sunglasses", "none", "round", "?"]
    hair = ["long", "hidden", "long", "bob", "hidden", "?"]
    judge = recorded(glasses=first + ["square"] * views, hair=hair + ["?"] * views, pose=["front", "?"] * views)
    panel, seen = dataset_panel(chosen, judge)
    column = {name: panel.labels[0][:, NAMES.index(name)].tolist() for name in NAMES}
    assert column["glasses"] == [1] * views  # what one view shows is the state's, whatever was said of that view
    assert column["hair"] == [6, HIDDEN, 6, 6, HIDDEN, 6]
    assert column["pose"] == [0, HIDDEN] * 3  # a view's own answer
    assert column["domain"] == [("comic", "photo").index(view.domain) for view in chosen[0].views]
    assert (panel.labels[1][:, NAMES.index("hair")] == HIDDEN).all()
    assert panel.rivals == (1, 0) and set(panel.relations) == {"stranger"} and len(seen) == 2 * views


def test_rival_is_the_twin_where_a_table_names_one(states):
    known = [replace(state, identity=person) for state, person in zip(states[:3], ("anna", "ben", "anna"), strict=True)]
    panel, _ = dataset_panel(known, recorded())
    assert panel.people == (0, 1, 0) and panel.rivals == (2, 2, 0)
    assert panel.relations == ("twin", "stranger", "twin")


def test_panel_is_of_held_out_states_with_silent_prompts_only(states):
    picked = held_out(states, config.tiny())
    assert len(picked) == 2
    with pytest.raises(DatasetError, match=r"0 of 3 states are held out of training(.|\n)*needs 2"):
        held_out([state for state in states if state not in picked], config.tiny())
    with pytest.raises(DatasetError, match=r"2 of 2 states (.|\n)* 1 of them"):
        held_out([picked[0], replace(picked[1], separation="nothing")], config.tiny())
    one = replace(config.tiny(), evaluate=replace(config.tiny().evaluate, states=1))
    with pytest.raises(DatasetError, match=r"evaluate.states is 1: evaluate needs 2"):
        held_out(states, one)

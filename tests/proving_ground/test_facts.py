import pytest
import torch

from harald.errors import ConfigError
from harald.proving_ground.mini_tokenizer import build
from harald.proving_ground.persons import ATTRIBUTES, HIDDEN, rendered
from harald.proving_ground.pretraining.facts import NONE, UNSEEN, WIDTHS, Sheet, facts
from harald.proving_ground.pretraining.vision import named

TOKENIZER = build()
SHEET = Sheet.of(TOKENIZER)


@pytest.fixture(scope="module")
def told():
    """(facts, labels) of each view of a few states of both streams."""
    states = [rendered(3, index, held_out=held, views=4, side=32) for index in range(12) for held in (False, True)]
    return [
        (facts(*texts, labels.tolist()), labels.tolist())
        for state in states
        for texts, labels in zip(state.prompts, state.labels, strict=True)
    ]


def test_facts_say_the_class_of_every_attribute_and_what_cannot_be_seen(told):
    for answers, labels in told:
        for (name, classes), label in zip(ATTRIBUTES.items(), labels, strict=True):
            answer = answers[list(WIDTHS).index(name)]
            assert named(answer, name, classes) == (-2 if label == HIDDEN else label), (name, answer)
            assert (answer == UNSEEN) == (label == HIDDEN)


def test_facts_use_the_words_of_the_prompt():
    labels = [classes.index("none") if "none" in classes else 0 for classes in ATTRIBUTES.values()]
    labels[list(ATTRIBUTES).index("glasses")] = 1
    full = (
        "comic of an old woman with a grey afro, round black glasses, olive skin, brown eyes, freckles and a long "
        "nose, wearing a black tank top, portrait, laughing, looking up, on a street at night"
    )
    said = dict(zip(WIDTHS, facts(full, "comic of person" + full[full.index(", portrait") :], labels), strict=True))
    assert said["hair"] == "a grey afro" and said["glasses"] == "round black glasses" and said["beard"] == NONE
    assert (said["person"], said["skin"], said["eyes"]) == ("an old woman", "olive skin", "brown eyes")
    assert (said["face"], said["outfit"]) == ("freckles, a long nose", "a black tank top")
    assert (said["expression"], said["pose"], said["scene"]) == ("laughing", "looking up", "on a street at night")


def test_answers_are_read_as_they_were_written(told):
    rows = [answers for answers, _ in told]
    assert SHEET.read(TOKENIZER, SHEET.answers(TOKENIZER, rows)) == rows


def test_an_answer_that_does_not_fit_is_an_error():
    row = [NONE] * len(WIDTHS)
    row[list(WIDTHS).index("pose")] = "turned to the right of the old grey house"
    with pytest.raises(ConfigError, match="fit under 'pose'"):
        SHEET.answers(TOKENIZER, [row])


def test_questions_see_what_is_before_them_and_themselves():
    seen = SHEET.visible(2)
    block = torch.cat([torch.tensor([-1, -1]), SHEET.block])
    for row in range(len(seen)):
        for column in range(len(seen)):
            own = column <= row and (column < 2 or block[column] == block[row])
            assert bool(seen[row, column]) == own


@pytest.mark.parametrize(
    ("text", "attribute", "classes", "expected"),
    [
        ("long wavy red hair", "hair", ("bald", "long", "wavy"), "wavy"),
        ("short grey hair", "hair", ("cropped", "long"), "cropped"),
        (NONE, "glasses", ("none", "round"), "none"),
        ("red sunglasses", "glasses", ("none", "round", "square", "sunglasses"), "sunglasses"),
        ("turned to the left", "pose", ("front", "up", "left"), "left"),
        ("with closed eyes", "expression", ("neutral", "sleeping"), "sleeping"),
    ],
)
def test_classes_are_found_in_an_answer(text, attribute, classes, expected):
    assert classes[named(text, attribute, classes)] == expected


def test_an_answer_that_names_no_class_is_never_right():
    assert named("red", "scene", ("park", "beach")) == -2

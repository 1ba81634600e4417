import doctest

import pytest

from harald.data import prompts as module
from harald.data.prompts import malformed_placeholder, separate

EXPRESSIONS = ("laughing", "angry", "sad", "winking", "surprised", "shouting", "calm", "smiling")
SCENES = (
    "in a park",
    "on a street at night",
    "in a library",
    "on a beach",
    "at home",
    "in the rain",
    "at work",
    "in snow",
)
WOMAN = "a young woman with long red hair, round glasses and silver hoop earrings"

STYLES = {
    "comma list, two domains": (
        [f"photo of {WOMAN}, laughing, in a park", f"comic of {WOMAN}, angry, on a street at night"],
        WOMAN,
        ["photo of <person>, laughing, in a park", "comic of <person>, angry, on a street at night"],
    ),
    "one domain only": (
        [
            "photo of an old man with a grey beard, laughing, in a park",
            "photo of an old man with a grey beard, sad, at sea",
        ],
        "an old man with a grey beard",
        ["photo of <person>, laughing, in a park", "photo of <person>, sad, at sea"],
    ),
    "long words about the medium": (
        [
            "A detailed black and white photograph of a bald man in a cafe",
            "A detailed black and white photograph of a bald man at sea",
        ],
        "a bald man",
        [
            "A detailed black and white photograph of <person> in a cafe",
            "A detailed black and white photograph of <person> at sea",
        ],
    ),
    "description in the middle, more of it later": (
        [
            "In a park at dusk, an old man with a grey beard is reading, wearing round glasses, photo",
            "On a beach, an old man with a grey beard is running, wearing round glasses, photo",
            "At home, an old man with a grey beard is asleep, wearing round glasses, comic style",
        ],
        "an old man with a grey beard",
        [
            "In a park at dusk, <person> is reading, photo",
            "On a beach, <person> is running, photo",
            "At home, <person> is asleep, comic style",
        ],
    ),
    "sentences": (
        [
            "A photograph shows a young woman with red hair. She is laughing in a sunny park. She wears glasses.",
            "A photograph shows a young woman with red hair. She is crying in a dark park. She wears glasses.",
        ],
        "a young woman with red hair",
        [
            "A photograph shows <person>. She is laughing in a sunny park.",
            "A photograph shows <person>. She is crying in a dark park.",
        ],
    ),
    "tags": (
        [
            "photo, young woman, red hair, freckles, smiling, beach",
            "comic, young woman, red hair, freckles, angry, office",
        ],
        "young woman, red hair, freckles",
        ["photo, <person>, smiling, beach", "comic, <person>, angry, office"],
    ),
    "words about quality are longer than the person": (
        [
            "portrait of a bald man, smiling, on a beach, highly detailed, sharp focus, best quality",
            "portrait of a bald man, sad, at home, highly detailed, sharp focus, best quality",
        ],
        "a bald man",
        ["portrait of <person>, smiling, on a beach", "portrait of <person>, sad, at home"],
    ),
    "shared place stays with the scene": (
        ["laughing in the park, a man with a hat", "crying in the park, a man with a hat"],
        "a man with a hat",
        ["laughing in the park, <person>", "crying in the park, <person>"],
    ),
    "style at the end": (
        ["a woman with red hair laughing in comic style", "a woman with red hair crying in comic style"],
        "a woman with red hair",
        ["<person> laughing in comic style", "<person> crying in comic style"],
    ),
    "capital letters": (
        ["A young woman with red hair smiles.", "Portrait: a young woman with red hair shouts!"],
        "A young woman with red hair",
        ["<person> smiles.", "Portrait: <person> shouts!"],
    ),
    "order changes": (
        ["laughing, a woman with red hair", "a woman with red hair, angry, in a park"],
        "a woman with red hair",
        ["laughing, <person>", "<person>, angry, in a park"],
    ),
    "dashes and apostrophes": (
        [
            "photo of a red-haired woman in her mother's coat, sad",
            "comic of a red-haired woman in her mother's coat, glad",
        ],
        "a red-haired woman in her mother's coat",
        ["photo of <person>, sad", "comic of <person>, glad"],
    ),
}


@pytest.mark.parametrize("style", STYLES)
def test_description_becomes_the_placeholder(style):
    prompts, person, expected = STYLES[style]
    found = separate(prompts)
    assert found.how == "shared"
    assert found.person == person
    assert list(found.prompts) == expected


@pytest.mark.parametrize("count", range(2, 17))
def test_any_number_of_views_gives_the_same_state_free_prompts(count):
    cells = [(d, e, s) for d in ("photo", "comic") for e, s in zip(EXPRESSIONS, SCENES, strict=True)][:count]
    found = separate([f"{d} of {WOMAN}, {e}, {s}" for d, e, s in cells])
    assert found.person == WOMAN
    assert list(found.prompts) == [f"{d} of <person>, {e}, {s}" for d, e, s in cells]


def test_words_that_only_one_domain_shares_are_not_the_person():
    found = separate(
        ["photo of a man, bold colours", "photo of a man, at sea", "comic of a man, bold colours, at home"]
    )
    assert found.prompts == (
        "photo of <person>, bold colours",
        "photo of <person>, at sea",
        "comic of <person>, bold colours, at home",
    )


def test_prompt_with_a_placeholder_is_kept_and_the_others_are_separated():
    found = separate(["<person> laughing", "photo of a man with a hat, sad", "comic of a man with a hat, glad"])
    assert found.prompts == ("<person> laughing", "photo of <person>, sad", "comic of <person>, glad")
    assert separate(["photo of <person>, sad"]).how == "given"


def test_one_distinct_prompt_becomes_the_placeholder_alone():
    found = separate(["photo of a man", "photo of a man"])
    assert (found.how, found.person, found.prompts) == ("single", "", ("<person>", "<person>"))


def test_prompts_that_share_nothing_keep_their_text_behind_the_placeholder():
    found = separate(["photo of the sea", "photo of a car"])
    assert (found.how, found.person) == ("nothing", "")
    assert found.prompts == ("<person>, photo of the sea", "<person>, photo of a car")


def test_stop_words_alone_are_no_description():
    assert separate(["she is in the house", "he is in the garden"]).how == "nothing"


@pytest.mark.parametrize(
    "prompts", [[",", "."], ["😀", "é à ü"], ["a" * 5000, "b " * 2000], [")(", "[.*\\"], ["", " "]]
)
def test_odd_text_is_survived(prompts):
    assert len(separate(prompts).prompts) == len(prompts)


def test_order_of_prompts_does_not_change_their_result():
    prompts = [
        f"{d} of {WOMAN}, {e}, {s}" for d in ("photo", "comic") for e, s in zip(EXPRESSIONS, SCENES, strict=True)
    ]
    forwards, backwards = separate(prompts), separate(prompts[::-1])
    assert dict(zip(prompts, forwards.prompts, strict=True)) == dict(zip(prompts[::-1], backwards.prompts, strict=True))


@pytest.mark.parametrize(
    ("prompt", "odd"),
    [
        ("<person> and <person>", ""),
        ("<person> and <person:ann>", "<person:ann>"),
        ("<Person>", "<Person>"),
        ("< person >", "< person >"),
        ("<person:a b>", "<person:a b>"),
    ],
)
def test_what_only_looks_like_a_placeholder_is_named(prompt, odd):
    assert malformed_placeholder(prompt) == odd


def test_examples_in_the_docstrings():
    assert doctest.testmod(module).failed == 0

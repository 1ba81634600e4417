import hashlib
import re
import subprocess
import sys

import numpy as np
import pytest

from harald.proving_ground.mini_tokenizer import build
from harald.proving_ground.persons import ATTRIBUTES, HIDDEN, STATE_ATTRIBUTES, person, pictures, rendered
from harald.proving_ground.persons.head import Part
from harald.proving_ground.persons.truth import classes, visible

SIDE = 48
NAMES = list(ATTRIBUTES)


def digest(images: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def some():
    return [rendered(3, index, views=4, side=64) for index in range(12)]


def test_another_process_renders_the_same_bytes():
    code = (
        "import hashlib; from harald.proving_ground.persons import rendered;"
        f"print(hashlib.sha256(rendered(7, 5, views=2, side={SIDE}).images.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest(rendered(7, 5, views=2, side=SIDE).images)


def test_twins_share_the_person_and_look_alikes_the_look():
    for index in range(0, 40, 2):
        one, two = person(0, index), person(0, index + 1)
        assert one.identity == two.identity and one.look != two.look
        assert one.look.hair != two.look.hair
        assert (one.look.glasses, one.look.headwear) != (two.look.glasses, two.look.headwear)
        first, second = (person(0, i, look_alikes=True) for i in (index, index + 1))
        assert first.look == second.look and first.identity != second.identity
        assert first.identity.male == second.identity.male


def test_held_out_persons_are_others():
    held_in = {person(0, index).identity for index in range(200)}
    assert not held_in & {person(0, index, held_out=True).identity for index in range(200)}


def test_every_class_occurs_and_most_can_be_seen():
    looks = [person(0, index, views=2) for index in range(600)]
    drawn = [classes(p.look, v) for p in looks for v in p.views]
    for name, kinds in ATTRIBUTES.items():
        share = {kind: sum(d[name] == kind for d in drawn) / len(drawn) for kind in kinds}
        assert min(share.values()) > 0.02, (name, share)


def test_what_is_worn_has_pixels_wherever_the_truth_says_it_is_seen(some):
    seen = np.concatenate([state.labels for state in some]) != HIDDEN
    for state in some:
        assert state.detail.shape == state.images.shape[:3]
    assert seen[:, NAMES.index("earrings")].mean() > 0.6
    assert seen[:, NAMES.index("necklace")].mean() > 0.8


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("earrings", {"earrings": "hoops", "earring": "gold"}),
        ("necklace", {"necklace": "pendant"}),
        ("glasses", {"glasses": "round"}),
        ("beard", {"beard": "full"}),
        ("headwear", {"headwear": "cap"}),
        ("makeup", {"lipstick": "red"}),
        ("hair", {"hair": "mohawk"}),
    ],
)
def test_each_thing_changes_the_picture_and_is_seen(attribute, change):
    import dataclasses

    someone = next(p for p in (person(1, i, views=2) for i in range(400)) if _plain(p))
    plain = pictures(someone, 64)
    dressed = dataclasses.replace(someone, look=dataclasses.replace(someone.look, **change))
    for before, after in zip(plain, pictures(dressed, 64), strict=True):
        assert np.abs(before.image.astype(int) - after.image).max() > 40
        assert visible(dressed.look, after.pixels)[attribute]


def _plain(p) -> bool:
    named = classes(p.look, p.views[0])
    nothing = all(named[a] == "none" for a in ("beard", "glasses", "earrings", "necklace", "headwear", "makeup"))
    return nothing and p.look.hair == "cropped" and p.views[0].pose == "front"


def test_hair_over_the_ears_hides_them_and_the_truth_says_so():
    import dataclasses

    base = next(p for p in (person(1, i, views=2) for i in range(400)) if _plain(p))
    hidden = dataclasses.replace(base, look=dataclasses.replace(base.look, hair="bob", tucked=False))
    assert all(picture.pixels[Part.EAR] < 25 for picture in pictures(hidden, 64))
    assert not any(visible(hidden.look, picture.pixels)["earrings"] for picture in pictures(hidden, 64))


def test_prompts_repeat_the_person_and_vary_the_view():
    someone = person(0, 4, views=8)
    description = someone.description()
    prompts = [someone.prompt(view) for view in someone.views]
    assert all(description in prompt for prompt in prompts)
    assert len({prompt.replace(description, "") for prompt in prompts}) > 4
    free = [someone.state_free_prompt(view) for view in someone.views]
    assert not any(word in text for text in free for word in ("hair", "glasses", "wearing", "skin", "woman", "man,"))
    assert not re.search(r"\ba [aeiou]", " ".join(prompts))


def test_every_word_is_one_token():
    tokenizer = build()
    texts = [p.prompt(v) for p in (person(0, index, views=2) for index in range(150)) for v in p.views]
    words = {word for text in texts for word in re.findall(r" [a-z]+", text)}
    split = {word for word in words if len(tokenizer(word).input_ids) > 1}
    assert not split, split


def test_labels_name_the_classes(some):
    someone = person(3, 0, views=4)
    for view, row in zip(someone.views, some[0].labels, strict=True):
        for name, label in zip(NAMES, row, strict=True):
            assert label == HIDDEN or ATTRIBUTES[name][label] == classes(someone.look, view)[name]
    assert set(STATE_ATTRIBUTES) < set(ATTRIBUTES)

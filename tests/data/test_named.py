"""Prompts as people write them: what of the words is about the person's looks."""

import pytest

from harald.data.description import read, wishes
from harald.data.named import named
from harald.evaluation.override import WORDS
from harald.proving_ground.persons import person


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (" with round red glasses, laughing, on a beach", "glasses"),
        (" with a black afro and gold hoop earrings", "hair earrings"),
        (" wearing a blue cap in a park", "headwear"),
        (" without glasses", "glasses"),
        (" with a beard wearing a red dress", "beard outfit"),
        (" in a red dress", "outfit"),
        (" in a park, a red cap on the bench", ""),
        (" on top of a mountain", ""),
        (", smiling, wearing sunglasses, in her red coat", "glasses outfit"),
        (" in front of a red cap", ""),
        (" next to a man wearing a hat", ""),
        (" laughing with a friend with a beard", ""),
        ("", ""),
        (" in an armchair, reading", ""),
        (" in a wheelchair", ""),
        (" with a mohair blanket", ""),
        (" with red hair, a beard and round glasses, wearing a coat", "hair beard glasses outfit"),
        (" wearing a red dress, white hat and boots", "outfit headwear"),
        (" wearing a hat\nand round glasses", "headwear glasses"),
        (" with a friend in a red dress", ""),
        (" with a friend wearing a hat", ""),
        (" with a woman with long blonde hair", ""),
        (" with his bald father", ""),
        (" with sunglasses next to a man wearing a hat", "glasses"),
        (", in the background a man in a hat", ""),
        (" in a garden with a red hat on the bench", ""),
        (" with a cup of coffee on top of a hill", ""),
        (" in the top row", ""),
        (" in a hair salon", ""),
        (" in the fringe of a forest", ""),
        (" in a chain store", ""),
        (" in a hat shop", ""),
        (" with Bob", ""),
        (" in a pearl grey suit", "outfit"),
        (" in a cap-sleeve dress", "outfit"),
        (" with long hair under a hat", "hair"),
        (" with her hair blowing in the wind", "hair"),
        (" smiling in a red dress", "outfit"),
        (" standing in a park wearing a blue hat", "headwear"),
        (" on a beach with sunglasses", "glasses"),
        (" in Paris wearing a beret", "headwear"),
        (" in jeans and a white shirt", "outfit"),
        (" in sunglasses", "glasses"),
        (" in red dress", "outfit"),
        (" has long blonde hair", "hair"),
        (" wears a red cap", "headwear"),
        (", with glasses", "glasses"),
        (",with glasses", "glasses"),
        (" (with glasses)", "glasses"),
        (" — with glasses — laughing", "glasses"),
        (" wearing a tuxedo", "outfit"),
        (" wearing a raincoat, in the rain", "outfit"),
        (" with a bald head", "hair"),
        (" with plum lipstick and violet eye shadow", "makeup"),
        (" with a pearl necklace", "necklace"),
        (" with a gold chain with a sapphire pendant", "necklace"),
        (" with stubble, in a library", "beard"),
        (" with grey hair in a bun", "hair"),
        (" with black hair in pigtails", "hair"),
        (" with a bun and ", "hair"),
        (" and ", ""),
        (" and", ""),
        (" with brown hair in a ponytail, laughing", "hair"),
        (" with a mustache and a hat, in a bar, holding a glass", "beard headwear"),
        (" at a wedding, in a white gown, with pearl earrings", "outfit earrings"),
        (" sitting at a table with glasses", "glasses"),
        (" as an astronaut in a spacesuit", "outfit"),
        (", portrait, smiling, facing the camera, in a studio", ""),
        (" with 1.5 m long hair", "hair"),
        (" with curly brown hair, laughing, on a beach", "hair"),
        (" dressed in black", ""),
        (", eyes closed, sleeping", ""),
        (", turned to the left, in a library", ""),
    ],
)
def test_looks_of_the_person_are_found_and_other_things_are_not(words, kinds):
    assert named(words) == set(kinds.split())


def test_whole_descriptions_and_every_wish_are_understood():
    for index in range(200):
        described = person(0, index).description()
        kinds = {wish.kind for wish in wishes(described, ("hair", "worn"))}
        _, _, behind = described.partition(" with ")
        found = named(f" with {behind}, smiling, on a beach")
        assert found - {"outfit"} == kinds and bool(read(described).clothes) == (", wearing" in behind)
        assert all(named(f" {wish.said}, laughing") == {wish.kind} for wish in wishes(described))
    for kind, classes in WORDS.items():
        assert all(named(f" {words.format('red')}, on a beach") == {kind} for words in classes.values())

import dataclasses

import pytest

from harald import config
from harald.config import LoraRef
from harald.errors import ConfigError, PromptError
from harald.generation.domains import domain_words, in_domain

MINI = config.mini()
STYLED = dataclasses.replace(config.full(), models=dataclasses.replace(config.full().models, lora=LoraRef("me/comics")))


@pytest.mark.parametrize(
    ("prompt", "domain", "drawn"),
    [
        ("<person> at sea", "comic", "comic of <person> at sea"),
        ("<person> at sea", "photo", "photo of <person> at sea"),
        ("<person> at sea", "", "<person> at sea"),
        ("comic of <person> at sea", "", "comic of <person> at sea"),
        ("comic of <person> at sea", "comic", "comic of <person> at sea"),
        ("A black and white photo of <person>", "photo", "A black and white photo of <person>"),
        ("<person> reading a comic", "comic", "comic of <person> reading a comic"),
        ("\n<person> at sea", "comic", "comic of <person> at sea"),
    ],
)
def test_words_of_the_domain_stand_before_the_prompt_once(prompt, domain, drawn):
    assert in_domain(prompt, domain, MINI) == drawn


def test_prompt_that_begins_with_another_domain_is_refused():
    with pytest.raises(PromptError, match=r"begins with 'A photo of' and the domain is 'comic'(.|\n)*leave one"):
        in_domain("A photo of <person>", "comic", MINI)


def test_domain_of_the_lora_needs_no_words_and_may_have_some():
    assert in_domain("photo of <person>", "comic", STYLED) == "photo of <person>"
    assert in_domain("<person>", "photo", STYLED) == "photo of <person>"
    trigger = dataclasses.replace(STYLED.generate, domains=(("comic", "ink drawing,"),))
    assert in_domain("<person>", "comic", dataclasses.replace(STYLED, generate=trigger)) == "ink drawing, <person>"


def test_domain_that_nothing_makes_is_refused_with_those_that_are_known():
    assert set(domain_words(MINI)) == {"photo", "comic"} and set(domain_words(config.full())) == {"photo"}
    with pytest.raises(ConfigError, match=r"domain 'comic'(.|\n)*known: photo; or set models.lora"):
        in_domain("<person>", "comic", config.full())

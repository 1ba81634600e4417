"""The domain of a picture: a photo, a comic, or what else the words of a prompt or a LoRA make of it."""

import re
from collections.abc import Sequence
from dataclasses import replace

from harald.config import Config
from harald.data.prompts import PLACEHOLDER, medium
from harald.data.words import STOP_WORDS
from harald.errors import ConfigError, PromptError, did_you_mean
from harald.records import View


def domain_words(config: Config) -> dict[str, str]:
    """Domains that can be asked for -> the words that ask for them; '' where no words are set and the LoRA does it."""
    words, lora = dict(config.generate.domains), config.models.lora
    return words if not lora.source or lora.domain in words else words | {lora.domain: ""}


def undescribed(views: Sequence[View], config: Config) -> list[View]:
    """The views as pictures of which nothing but their domain is known: what prompts say of them is forgotten."""
    words = domain_words(config)
    said = [f"{words.get(view.domain, '')} {PLACEHOLDER}".strip() for view in views]
    return [replace(view, prompt=text, person_prompt=text) for view, text in zip(views, said, strict=True)]


def in_domain(text: str, domain: str, config: Config) -> str:
    """The prompt with the domain's words before it. domain: '' leaves the prompt as it is.

    A prompt that begins with these words, or names the domain as in "black and white photo of", is taken as it is.
    Raises ConfigError for a domain that nothing makes, PromptError for a prompt that begins with another one.
    """
    if not domain:
        return text
    known = domain_words(config)
    if domain not in known:
        raise ConfigError(
            f"nothing makes pictures of domain {domain!r}: neither words in generate.domains nor the LoRA",
            f"{did_you_mean(domain, known)}; or set models.lora, or add to generate.domains such as "
            f'["{domain}", "{domain} of"]',
        )
    words, said = known[domain], medium(text)
    if not words or (said and _content(words) <= _content(said)):
        return text
    if said:
        raise PromptError(
            f"the prompt begins with {said!r} and the domain is {domain!r}, which puts {words!r} there: {text!r}",
            "leave one of the two out; what else the beginning says may stand behind the person",
        )
    return f"{words} {text.lstrip()}"


def _content(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - STOP_WORDS

"""What the page does with the models. It runs in the desk's one thread."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import BaseModel, Field

from harald.base import BaseModel as PictureModel
from harald.base.prompt_template import TEMPLATE_TAIL
from harald.base.qwen_image import MAX_STATES
from harald.config import Config
from harald.encoder.model import PersonEncoder
from harald.encoder.predict import predict
from harald.errors import PromptError
from harald.generation.domains import in_domain
from harald.generation.draw import draw
from harald.generation.persons import making_room, without_groups
from harald.injection.layout import word_ends
from harald.injection.person_file import check_fits, from_bytes
from harald.injection.prompt import ANY, Prompt, check_names, parse
from harald.records import PersonTokens

FILE = Path("the person file")  # for messages: what a visitor sends has no path


class Order(BaseModel):
    """What a visitor asks for.

    domain: '' for as the prompt says; keep: groups of the person, None for all; compare: the same seed without the
    person as well.
    """

    prompt: str = Field(pattern=r"\S")
    domain: str = Field("", pattern=r"^[A-Za-z0-9_]{0,40}$")
    seed: int = Field(0, ge=0, lt=2**63)
    strength: float = Field(1.0, ge=0, le=5, allow_inf_nan=False)
    keep: Annotated[tuple[str, ...], Field(max_length=32)] | None = None
    compare: bool = True


@dataclass(frozen=True)
class Studio:
    """encoder: None if no training run was given; then persons come from files alone."""

    config: Config
    base: PictureModel
    encoder: PersonEncoder | None
    encoder_name: str

    def read_file(self, data: bytes) -> PersonTokens:
        """Raises PersonFileError."""
        person = from_bytes(data, str(FILE))
        check_fits(person, self.base, FILE)
        return person

    def read_pictures(self, pictures: Sequence[Image.Image]) -> PersonTokens:
        assert self.encoder is not None, "asked before anything was uploaded"
        return predict(self.encoder, pictures, self.encoder_name)

    def prepare(self, order: Order, person: PersonTokens | None) -> tuple[Prompt, PersonTokens | None, list[str]]:
        """Everything that can be wrong with an order, found before it waits in line; at last the groups of the person
        that made room for the prompt's words. Raises HaraldError.
        """
        text = in_domain(order.prompt, order.domain, self.config)
        if person is None:
            prompt = parse(text) if "<" in text and "person" in text else Prompt((text,), ())
        else:
            prompt = parse(text)
            check_names(prompt, {ANY})
            word_ends(self.base.tokenize, prompt, self.config.injection.class_word)
        if person is not None and order.keep is not None:
            groups, kept = {name for name, _ in person.groups}, set(order.keep)
            person = without_groups(person, sorted(groups ^ kept))  # an unknown group is refused there
        won: list[str] = []
        if person is not None and self.config.generate.words_win:
            won = making_room(prompt, {ANY: person})[ANY]
            person = without_groups(person, won)
        self.check_length(prompt, person)
        return prompt, person, won

    def check_length(self, prompt: Prompt, person: PersonTokens | None) -> None:
        text = prompt.with_word(self.config.injection.class_word) + TEMPLATE_TAIL
        states = len(self.base.tokenize(text)) + (len(person.tokens) * len(prompt.names) if person else 0)
        if states > MAX_STATES:
            raise PromptError(f"the prompt has {states} tokens, at most {MAX_STATES} are read", "shorten it")

    def draw(
        self, prompt: Prompt, person: PersonTokens | None, order: Order, step: Callable[[float], None]
    ) -> list[Image.Image]:
        """The picture; then the one without the person, if the order says so. step: called with the share done."""
        arms: list[dict] = (
            [{ANY: person.tokens}, {}] if person and order.compare else [{ANY: person.tokens} if person else {}]
        )
        total, done = len(arms) * self.config.generate.steps, 0

        def on_step() -> None:
            nonlocal done
            done += 1
            step(done / total)

        pictures = []
        for tokens in arms:
            pictures += draw(
                self.base, prompt, tokens, [order.seed], self.config, order.domain,
                person.point if person else None, order.strength, on_step,
            )  # fmt: skip
        return pictures

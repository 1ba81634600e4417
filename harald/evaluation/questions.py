"""Closed questions about one picture, and how their answers are read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harald.evaluation.panel import HIDDEN, NONE, UNREADABLE

HIDDEN_WORD = "hidden"  # the answer for a part that the picture does not show


@dataclass(frozen=True)
class Question:
    """classes: what may be answered; can_hide: so may HIDDEN_WORD."""

    asks: str
    classes: tuple[str, ...]
    can_hide: bool = False

    @property
    def text(self) -> str:
        answers = [*self.classes, *([HIDDEN_WORD] if self.can_hide else [])]
        return f"{self.asks} Answer with one of: {', '.join(answers)}."

    def read(self, answer: str) -> int:
        """Number of the class, HIDDEN, or UNREADABLE for anything else. Case and a full stop at the end do not matter.

        >>> Question("Does the person wear glasses?", ("none", "round")).read("Round.")
        1
        """
        said = answer.strip().removesuffix(".").lower()
        if self.can_hide and said == HIDDEN_WORD:
            return HIDDEN
        return self.classes.index(said) if said in self.classes else UNREADABLE


def questions(domains: Sequence[str]) -> Mapping[str, Question]:
    """By attribute; the classes are named as the synthetic persons' are. domains: of the data set's pictures."""
    return {
        "hair": Question(
            "What hair does the person have?",
            ("bald", "cropped", "curly", "afro", "mohawk", "bob", "long", "wavy", "bun", "pigtails"),
            can_hide=True,
        ),
        "hair_colour": Question(
            "What colour is the person's hair?",
            ("black", "brown", "ginger", "blonde", "grey", "blue", "green", "pink", "purple"),
            can_hide=True,
        ),
        "beard": Question("What beard does the person have?", (NONE, "stubble", "moustache", "goatee", "full"), True),
        "glasses": Question("Does the person wear glasses?", (NONE, "round", "square", "sunglasses")),
        "earrings": Question("Does the person wear earrings?", (NONE, "studs", "hoops", "drops"), can_hide=True),
        "necklace": Question("Does the person wear a necklace?", (NONE, "chain", "pearls", "pendant"), can_hide=True),
        "headwear": Question(
            "Does the person wear something on the head?", (NONE, "beanie", "cap", "hat", "headscarf", "headband")
        ),
        "makeup": Question("Is the person made up?", (NONE, "made up"), can_hide=True),
        "scene": Question("Where is the person?", ("indoors", "street", "nature", "water", "plain background")),
        "expression": Question(
            "What is the person's expression?",
            ("neutral", "smiling", "laughing", "surprised", "angry", "sad", "winking", "sleeping"),
            can_hide=True,
        ),
        "pose": Question("Which way does the person look?", ("front", "left", "right", "up", "down")),
        "domain": Question("What kind of picture is this?", tuple(domains)),
    }

"""Errors that a user can mend: what is wrong, with which value, what to do. None is shown with a traceback."""

import difflib
from collections.abc import Iterable


class HaraldError(Exception):
    """Base of all errors that a user can mend.

    what: what is wrong, with the offending value. fix: what to do about it.
    The message is one string, so that the error survives pickling between a container and the command line.
    exit_code: what the command then ends with.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = ""):
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)


class ConfigError(HaraldError):
    """A flag, an override, a preset or a run name is not usable."""


class RunError(HaraldError):
    """A run has another owner, or cannot be stopped."""


class DatasetError(HaraldError):
    """The data set, a state or a picture is not usable."""


class ModelError(HaraldError):
    """A model, a revision, a token or the cache is missing or does not fit."""


class PersonFileError(HaraldError):
    """A person file cannot be read or does not fit the base model."""


class PromptError(HaraldError):
    """A prompt has no placeholder, an unknown person or is too long."""


class TrainingError(HaraldError):
    """A training run cannot start, go on or be compared."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """'did you mean steps?' where a known name is close, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"

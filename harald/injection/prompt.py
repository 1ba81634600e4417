"""`<person>` and `<person:name>` in a prompt."""

import re
from dataclasses import dataclass

from harald.errors import PromptError, did_you_mean

_PLACEHOLDER = re.compile(r"<person(?::([A-Za-z0-9_-]+))?>")
ANY = ""  # the name of the person behind a plain <person>


@dataclass(frozen=True)
class Prompt:
    """Text around placeholders: texts[0] names[0] texts[1] names[1] ... texts[-1]."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def with_word(self, word: str) -> str:
        """The prompt as plain text, a word in place of every placeholder."""
        return word.join(self.texts)

    def spans(self, word: str) -> list[tuple[int, int]]:
        """Where `with_word` has put the words: [start, end) in characters."""
        spans, position = [], 0
        for text in self.texts[:-1]:
            position += len(text)
            spans.append((position, position + len(word)))
            position += len(word)
        return spans


def parse(prompt: str) -> Prompt:
    """Raises PromptError if the prompt is empty, has no placeholder or a malformed one.

    Leading empty lines go: their tokens would melt with the newline that ends the template's head.
    """
    if not prompt.strip():
        raise PromptError("the prompt is empty", 'write one such as "photo of <person> laughing on a beach"')
    prompt = re.sub(r"^\s*[\r\n]", "", prompt)
    pieces = _PLACEHOLDER.split(prompt)
    texts, names = tuple(pieces[0::2]), tuple(name or ANY for name in pieces[1::2])
    for text in texts:
        if odd := re.search(r"<\s*/?\s*person[^>]*>?", text, re.IGNORECASE):
            raise PromptError(
                f"malformed placeholder {odd.group()!r} in the prompt {prompt!r}", "write <person> or <person:name>"
            )
    if not names:
        raise PromptError(f"the prompt {prompt!r} has no placeholder", "put <person> where the person belongs")
    return Prompt(texts, names)


def check_names(prompt: Prompt, known: set[str]) -> None:
    """Raises PromptError for a placeholder without a person file, and for a person file without a placeholder."""
    for name in prompt.names:
        if name not in known:
            shown = f"<person:{name}>" if name else "<person>"
            raise PromptError(
                f"no person file for {shown}",
                f"{did_you_mean(name, known)}; pass --person {name or 'FILE'}" + ("=FILE" if name else ""),
            )
    if unused := known - set(prompt.names):
        raise PromptError(
            f"the prompt does not mention {sorted(unused)}", "add <person:name>, or leave that person file out"
        )

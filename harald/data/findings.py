"""What can be wrong with a data set: one record per finding, with the fix."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """error: something is left out; warning: everything stays usable."""

    severity: Severity
    title: str
    fix: str


KINDS: dict[str, Kind] = {
    "base_missing": Kind("error", "Base folder missing", "mount or create the base folder"),
    "base_empty": Kind("warning", "Base folder without states", "put seed_<number> folders directly into it"),
    "wrong_folder_name": Kind("error", "Wrong folder name", "rename the folder to seed_<number>, or move it out"),
    "wrong_file_name": Kind(
        "error", "Wrong file name", "rename it to <domain>_view_<number>.png or .txt (lower-case ending)"
    ),
    "stray_file": Kind("warning", "Stray file", "move it out of the data set"),
    "unreadable": Kind("error", "Unreadable", "check permissions, the link's target and the disk"),
    "outside_base": Kind("error", "Link out of the base folder", "copy the file or folder into the base folder"),
    "duplicate_state": Kind("error", "State in two places", "remove one of the two, or give it another number"),
    "duplicate_view": Kind("error", "View in two files", "remove one of the two, or give it another number"),
    "missing_prompt": Kind("error", "Picture without prompt", "write the prompt into a .txt of the same name"),
    "empty_prompt": Kind("error", "Empty prompt", "write the prompt into the file"),
    "prompt_not_utf8": Kind("error", "Prompt is not UTF-8", "save the file as UTF-8"),
    "prompt_too_long": Kind("error", "Prompt too long", "shorten it; Qwen-Image reads at most 1024 tokens"),
    "malformed_placeholder": Kind(
        "error", "Malformed placeholder in a prompt", "write <person>, without a name: a state is one person"
    ),
    "orphan_prompt": Kind("warning", "Prompt without picture", "add the picture, or remove the prompt"),
    "not_png": Kind("error", "Not a PNG", "convert the picture to PNG; the ending alone does not do it"),
    "truncated_picture": Kind("error", "Truncated or damaged picture", "write or copy the file again"),
    "too_small": Kind("error", "Picture too small", "replace it, or lower data.min_side"),
    "too_large": Kind("error", "Picture too large", "scale it down"),
    "odd_size": Kind("warning", "Odd size", "none needed: it is scaled and cropped; check that this is meant"),
    "too_few_views": Kind("error", "Too few usable views", "repair the files, or lower data.min_views"),
    "single_prompt": Kind("warning", "All prompts alike", "let the prompts vary in scene, pose or expression"),
    "no_description": Kind(
        "warning", "No shared description", "repeat the person's description in all prompts of the state"
    ),
}


@dataclass(frozen=True)
class Problem:
    """One finding. base: number of the base folder; state_id, file: names, empty where more than one is concerned."""

    kind: str
    base: int
    state_id: str = ""
    file: str = ""
    detail: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        for name in ("state_id", "file", "detail"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "fix", self.fix or KINDS[self.kind].fix)

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    @property
    def place(self) -> str:
        return "/".join(str(part) for part in (self.base, self.state_id, self.file) if part != "")

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity}


def printable(text: str) -> str:
    r"""Text that UTF-8 can hold: bytes of a file name that are not UTF-8 become \x.. (Linux allows them).

    >>> printable("photo\udcff.png")
    'photo\\xff.png'
    """
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

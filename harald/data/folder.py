"""One state's folder -> its usable views and everything that is wrong with the others."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harald.config import Data
from harald.data import picture_check
from harald.data.findings import Problem
from harald.data.parts import ENDING
from harald.data.prompts import malformed_placeholder, separate
from harald.records import State, View

_VIEW = re.compile(r"(?P<domain>.+)_view_(?P<number>[0-9]{1,9})", re.DOTALL)
MAX_PROMPT_BYTES = 16_384
_UNSEPARATED = {
    "single": ("single_prompt", "", "nothing tells person from scene: the state-free prompt is <person> alone"),
    "nothing": ("no_description", "", "the state-free prompts are not silent about the state"),
}


@dataclass(frozen=True)
class Found:
    """state: what is usable, None if nothing is; problems: all findings of the same place."""

    state: State | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class _Picture:
    """A file that is named like a view."""

    domain: str
    number: int
    file: str

    @property
    def prompt_file(self) -> str:
        return self.file.removesuffix(".png") + ".txt"


class FolderScan:
    """root: the resolved base folder, which no link may leave; folder: the state's folder below it."""

    def __init__(self, base: int, root: str, state_id: str, data: Data):
        self.base, self.root, self.state_id, self.data = base, root, state_id, data
        self.folder = os.path.join(root, state_id)
        self.problems: list[Problem] = []

    def scan(self) -> Found:
        try:
            if os.path.islink(self.folder) and self._leaves_base(self.folder, ""):
                return Found(None, tuple(self.problems))
            with os.scandir(self.folder) as entries:
                files = {entry.name: entry.is_symlink() for entry in entries}
        except OSError as error:
            self._report("unreadable", "", _reason(error))
            return Found(None, tuple(self.problems))
        pictures, prompts = self._sort_out(files)
        usable = []
        for picture in self._without_duplicates(pictures):
            size = self._size(picture.file, files[picture.file])
            prompt = self._prompt(picture, prompts, files)
            if size and prompt:
                usable.append((picture, size, prompt))
        for name in sorted(prompts.keys() - {picture.prompt_file for picture in pictures}):
            self._report("orphan_prompt", name, f"no picture {name.removesuffix('.txt')}.png")
        return Found(self._state(usable), tuple(self.problems))

    def _report(self, kind: str, file: str, detail: str) -> None:
        self.problems.append(Problem(kind, self.base, self.state_id, file, detail))

    def _sort_out(self, files: dict[str, bool]) -> tuple[list[_Picture], dict[str, bool]]:
        """Pictures (by domain and number) and prompt files; whatever is neither is reported."""
        pictures, prompts, masks = [], {}, []
        for name in sorted(files):
            stem, ending = os.path.splitext(name)
            match = _VIEW.fullmatch(stem)
            if ending.lower() not in {".png", ".txt"}:
                self._report("stray_file", name, "neither a .png nor a .txt")
            elif name.endswith(ENDING) and _VIEW.fullmatch(name.removesuffix(ENDING)):
                masks.append(name)
            elif not match or ending != ending.lower() or not _is_text(name):
                self._report("wrong_file_name", name, "not <domain>_view_<number>" + ending.lower())
            elif ending == ".txt":
                prompts[name] = True
            else:
                pictures.append(_Picture(match["domain"], int(match["number"]), name))
        for name in masks:
            if (picture := name.removesuffix(ENDING) + ".png") not in files:
                self._report("stray_file", name, f"no picture {picture}")
        return sorted(pictures, key=lambda p: (p.domain, p.number, p.file)), prompts

    def _without_duplicates(self, pictures: list[_Picture]) -> Iterator[_Picture]:
        kept: dict[tuple[str, int], str] = {}
        for picture in pictures:
            first = kept.setdefault((picture.domain, picture.number), picture.file)
            if first is picture.file:
                yield picture
            else:
                self._report("duplicate_view", picture.file, f"the same view as {first}, which is kept")

    def _size(self, name: str, is_link: bool) -> tuple[int, int] | None:
        path = os.path.join(self.folder, name)
        try:
            if is_link and self._leaves_base(path, name):
                return None
            width, height = picture_check.check(path, self.data.verify_pixels)
        except picture_check.Unusable as error:
            self._report(error.kind, name, str(error))
            return None
        except OSError as error:
            self._report("unreadable", name, _reason(error))
            return None
        if min(width, height) < self.data.min_side:
            self._report("too_small", name, f"{width} x {height} pixels, needs {self.data.min_side} on each side")
            return None
        return width, height

    def _prompt(self, picture: _Picture, prompts: dict[str, bool], files: dict[str, bool]) -> str:
        """The prompt in one line; '' if it is not usable."""
        name = picture.prompt_file
        if name not in prompts:
            self._report("missing_prompt", picture.file, f"no prompt {name}")
            return ""
        path = os.path.join(self.folder, name)
        try:
            if files[name] and self._leaves_base(path, name):
                return ""
            raw = _read(path)
            text = raw.decode("utf-8-sig")
        except OSError as error:
            self._report("unreadable", name, _reason(error))
            return ""
        except UnicodeDecodeError as error:
            self._report("prompt_not_utf8", name, f"byte {error.start} is {error.object[error.start]:#04x}")
            return ""
        prompt = " ".join(text.replace("\x00", " ").split())
        if len(raw) > MAX_PROMPT_BYTES:
            self._report("prompt_too_long", name, f"more than {MAX_PROMPT_BYTES} bytes")
        elif not prompt:
            self._report("empty_prompt", name, f"{len(raw)} bytes, nothing but blanks" if raw else "0 bytes")
        elif odd := malformed_placeholder(prompt):
            self._report("malformed_placeholder", name, odd)
        else:
            return prompt
        return ""

    def _leaves_base(self, path: str, name: str) -> bool:
        """Raises OSError for a link that leads nowhere."""
        target = os.path.realpath(path, strict=True)
        leaves = os.path.commonpath([target, self.root]) != self.root
        if leaves:
            self._report("outside_base", name, f"leads to {target}")
        return leaves

    def _state(self, usable: list[tuple[_Picture, tuple[int, int], str]]) -> State | None:
        if len(usable) < self.data.min_views:
            rejected = ", ".join(f"{p.file} ({p.kind})" for p in self.problems if p.file and p.severity == "error")
            detail = f"{len(usable)} usable views, needs {self.data.min_views} (one to look at, one to draw)"
            self._report("too_few_views", "", detail + (f"; rejected: {rejected}" if rejected else ""))
            return None
        found = separate([prompt for _, _, prompt in usable])
        if found.how in _UNSEPARATED:
            self._report(*_UNSEPARATED[found.how])
        folder = Path(self.folder)
        views = tuple(
            View(picture.domain, picture.number, folder / picture.file, prompt, person_prompt, *size)
            for (picture, size, prompt), person_prompt in zip(usable, found.prompts, strict=True)
        )
        return State(self.state_id, self.base, views, found.person, found.how)


def _read(path: str) -> bytes:
    """At most one byte more than a prompt may have; never blocks on a pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(handle, MAX_PROMPT_BYTES + 1)
    finally:
        os.close(handle)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: OSError) -> str:
    return error.strerror or str(error)

"""The machine-readable list of problems, written as a stream: a broken data set of any size needs no memory."""

import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from harald.data.findings import KINDS, Problem

SHOWN_PER_KIND = 40


class ProblemFile:
    """problems.json: {"problems": [...], "summary": {kind: count}, ...facts}; it appears when `with` ends well.

    counts: problems by kind; shown: the first few of each kind, for a report.
    """

    def __init__(self, path: Path):
        self.path = path
        self.counts: Counter[str] = Counter()
        self.shown: dict[str, list[Problem]] = {}
        self.facts: dict[str, int] = {}

    def __enter__(self) -> "ProblemFile":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.tmp")
        self._file = self._temporary.open("w", encoding="utf-8")
        self._file.write('{"problems": [')
        return self

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            separator = ",\n  " if self.counts else "\n  "
            self._file.write(separator + json.dumps(problem.as_json(), ensure_ascii=False))
            self.counts[problem.kind] += 1
            some = self.shown.setdefault(problem.kind, [])
            if len(some) < SHOWN_PER_KIND:
                some.append(problem)

    def summary(self) -> dict[str, int]:
        """Problems by kind, in the order of KINDS."""
        return {kind: self.counts[kind] for kind in KINDS if kind in self.counts}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            rest = json.dumps({"summary": self.summary(), **self.facts}, indent=1)
            self._file.write("\n]," + rest[1:] + "\n")
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink()

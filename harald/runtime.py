"""What a job may know of the place it runs in: folders, how to make output durable, how to fan out. No Modal here."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def _nothing() -> None:
    """On a local disk a rename is durable enough; on Modal the volume's commit stands here."""


@dataclass(frozen=True)
class Runtime:
    """Folders and services of one job.

    root: what stands for /mnt; datasets: base folder by number; output: where all that is written goes;
    hf_cache: the Hugging Face cache; commit: makes written files durable for other containers;
    reload: makes files visible that other containers have committed (no file of the output folder may be open);
    remote_map: (name of a part, its items) -> results, one container per item; None: one after the other, here.
    """

    root: Path
    datasets: dict[int, Path]
    output: Path
    hf_cache: Path
    commit: Callable[[], None] = _nothing
    reload: Callable[[], None] = _nothing
    remote_map: Callable[[str, list[tuple]], Iterable[Any]] | None = None

    @classmethod
    def local(cls, root: Path | None = None) -> "Runtime":
        """The tree that Modal mounts at /mnt, under $HARALD_ROOT (default ./mnt)."""
        root = (root or Path(os.environ.get("HARALD_ROOT", "mnt"))).resolve()
        bases = root / "dataset"
        found = sorted(int(p.name) for p in bases.iterdir() if p.name.isdecimal()) if bases.is_dir() else []
        return cls(
            root=root,
            datasets={number: bases / str(number) for number in found},
            output=root / "output",
            hf_cache=root / "hf_cache",
        )

    def map(self, part: Callable[..., Any], items: list[tuple]) -> Iterator[Any]:
        """part(runtime, *item) for every item, in the order of the items. The part must be known to jobs.part."""
        if self.remote_map is None:
            for item in items:
                yield part(self, *item)
        else:
            yield from self.remote_map(part.__name__, items)

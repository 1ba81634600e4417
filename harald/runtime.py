"""What a job may know of the place it runs in: folders, how to make output durable, how to fan out. No Modal here."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def _nothing() -> None:
    """On a local disk a rename is durable enough; on Modal the volume's commit stands here."""


def _read(path: Path) -> bytes | None:
    """On a local disk there is one truth; on Modal a file is asked for as other containers have committed it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@dataclass(frozen=True)
class Pace:
    """Seconds. poll: between two looks for a request to stop; beat: between two signs of life of a run's owner;
    settle: after which one of two writers that came at once sees the other; note: between two writes of the status.
    """

    poll: float = 1.0
    beat: float = 10.0
    settle: float = 0.0
    note: float = 30.0

    @property
    def silence(self) -> float:
        """After so long without a sign of life an owner counts as gone. Long: clocks differ, and disks stall."""
        return 9 * self.beat


@dataclass(frozen=True)
class Machine:
    """What a job was given. gpu: empty for none, or unknown; timeout: seconds, 0 for none; price: USD a second at list
    price for what was asked for, 0 on a machine of one's own, None where config.py knows none; part: the same for the
    container of an item of a fan-out.
    """

    gpu: str = ""
    timeout: float = 0.0
    price: float | None = 0.0
    part: float | None = 0.0


@dataclass(frozen=True)
class Cluster:
    """Machines that work on one call. host: this one's number; addresses: of all, by number."""

    host: int = 0
    addresses: tuple[str, ...] = ("localhost",)


class Session:
    """What a job tells while it works, and what it is told. This one is silent: for work that is no run of its own."""

    @property
    def stopping(self) -> bool:
        """Somebody asked the job to write what it has and end."""
        return False

    def hold(self, folder: Path, config: Any, inputs: dict[str, Any]) -> None:
        """Make the run folder this job's own. Raises RunError if another one writes into it."""

    def check(self) -> None:
        """Before something is replaced. Raises RunError if the run has another owner by now."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """Cheap: call it at every step."""

    def score(self, name: str, value: float, lower_is_better: bool = False) -> None:
        """The best one is kept in the run's status."""

    def spent(self) -> str:
        """What the run has cost so far, for a line of progress; empty where nothing is to be paid."""
        return ""

    def add_seconds(self, seconds: float) -> None:
        """Time that a container like this one has worked for this job."""

    def finishes_step(self) -> contextlib.AbstractContextManager[None]:
        """Inside, an interrupt does not break off the work: `stopping` becomes true."""
        return contextlib.nullcontext()


@dataclass(frozen=True)
class Runtime:
    """Folders and services of one job.

    root: what stands for /mnt; datasets: base folder by number; output: where all that is written goes;
    hf_cache: the Hugging Face cache; commit: makes written files durable for other containers; reload: shows what
    others have committed; fetch: a file of the output as others have committed it, None if there is none (both raise
    OSError); remote_map: (name of a part, its items) -> (seconds, result), one container per item, None: one after the
    other, here. call: names the work across retries; empty: it is this process. session: see above.
    """

    root: Path
    datasets: dict[int, Path]
    output: Path
    hf_cache: Path
    commit: Callable[[], None] = _nothing
    reload: Callable[[], None] = _nothing
    fetch: Callable[[Path], bytes | None] = _read
    remote_map: Callable[[str, list[tuple]], Iterable[tuple[float, Any]]] | None = None
    call: str = ""
    pace: Pace = Pace()
    machine: Machine = Machine()
    cluster: Cluster = Cluster()
    session: Session = field(default_factory=Session)

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
            for seconds, result in self.remote_map(part.__name__, items):
                self.session.add_seconds(seconds)
                yield result

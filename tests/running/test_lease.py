"""One writer for a run folder: real processes on one disk, and two containers that see each other only by commits."""

import dataclasses
import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from harald.errors import RunError
from harald.running.lease import Lease, Note
from harald.runs import LEASE
from harald.runtime import Pace, Runtime
from tests.processes import CONTEXT

QUICK = Pace(poll=0.02, beat=0.5, settle=0.3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "output" / "train" / "a").mkdir(parents=True)
    return tmp_path / "output" / "train" / "a"


def local(folder: Path, **changes) -> Runtime:
    return dataclasses.replace(Runtime.local(folder.parents[2]), **changes)


def take_and_wait(folder: str, barrier, results) -> None:
    """In a process of its own: take the folder at the same moment as the others; the winner keeps it."""
    lease = Lease(Runtime.local(Path(folder).parents[2]), Path(folder))
    barrier.wait()
    try:
        lease.take()
    except RunError as error:
        results.put(str(error))
        return
    results.put(os.getpid())
    time.sleep(60)


def holders(folder: Path, count: int) -> tuple[list, list]:
    """Processes that all try at once; what each of them reports: its number, or why it was refused."""
    barrier, results = CONTEXT.Barrier(count), CONTEXT.Queue()
    processes = [CONTEXT.Process(target=take_and_wait, args=(str(folder), barrier, results)) for _ in range(count)]
    for process in processes:
        process.start()
    return processes, [results.get(timeout=120) for _ in processes]


def test_one_of_many_processes_gets_the_folder_and_a_killed_one_leaves_it_to_the_next(folder):
    processes, answers = holders(folder, 5)
    winners = [answer for answer in answers if isinstance(answer, int)]
    refused = [answer for answer in answers if isinstance(answer, str)]
    assert len(winners) == 1 and len(refused) == 4
    assert all(f"held by process {winners[0]} on " in text and "choose another --run-name" in text for text in refused)
    (owner,) = (process for process in processes if process.pid == winners[0])
    newcomer = Lease(local(folder), folder)
    with pytest.raises(RunError, match=f"process {owner.pid}"):
        newcomer.take()
    owner.kill()
    owner.join()
    newcomer.take()
    newcomer.check()


def test_what_has_ended_leaves_the_folder_free(folder):
    first = Lease(local(folder, call="fc-1"), folder)
    first.take()
    first.release()
    assert not (folder / LEASE).exists()
    Lease(local(folder, call="fc-2"), folder).take()
    first.release()  # it is another's now
    assert (folder / LEASE).exists()


def test_retry_of_a_call_takes_over_at_once_and_its_predecessor_has_lost(folder):
    first, successor = (Lease(local(folder, call="fc-1"), folder) for _ in range(2))
    first.take()
    successor.take()
    with pytest.raises(RunError, match="function call fc-1 has taken it over"):
        first.renew()
    successor.renew()


def test_owner_that_wakes_up_after_its_successor_has_ended_does_not_go_on(folder):
    first, successor = (Lease(local(folder, call="fc-1"), folder) for _ in range(2))
    first.take()
    successor.take()
    successor.release()
    with pytest.raises(RunError, match="its lease is gone"):
        first.check()


def test_owner_whose_clock_is_hours_behind_is_refused_as_long_as_it_counts_on(folder):
    owner, over = Lease(local(folder, call="fc-1", pace=QUICK), folder), threading.Event()
    owner.take()

    def live() -> None:
        while not over.wait(0.1):
            owner.renew()
            shift(folder, -7200)

    shift(folder, -7200)
    thread = threading.Thread(target=live)
    thread.start()
    try:
        with pytest.raises(RunError, match="held by function call fc-1"):
            Lease(local(folder, call="fc-2", pace=QUICK), folder).take()
    finally:
        over.set()
        thread.join()
    owner.check()


def test_owner_that_was_silent_for_long_is_succeeded(folder):
    owner = Lease(local(folder, call="fc-1", pace=QUICK), folder)
    owner.take()
    with pytest.raises(RunError):
        Lease(local(folder, call="fc-2", pace=QUICK), folder).take()
    shift(folder, -QUICK.silence - 1)
    Lease(local(folder, call="fc-2", pace=QUICK), folder).take()
    with pytest.raises(RunError, match="fc-2 has taken it over"):
        owner.check()


def shift(folder: Path, seconds: float) -> None:
    """As if the owner's clock had said so."""
    note = json.loads((folder / LEASE).read_text())
    note["renewed"] = time.time() + seconds
    (folder / LEASE).write_text(json.dumps(note))


class Volume:
    """What has been committed, and mounts that each see their own writes only. The last commit of a file wins."""

    def __init__(self, folder: Path):
        self.committed = folder / "committed"

    def mount(self, name: str) -> tuple[Runtime, Path]:
        root = self.committed.parent / name
        run = root / "output" / "train" / "a"
        run.mkdir(parents=True)

        def commit() -> None:
            file = run / LEASE
            if file.exists():
                self.committed.mkdir(exist_ok=True)
                shutil.copyfile(file, self.committed / name)
                os.replace(self.committed / name, self.committed / LEASE)
            else:
                (self.committed / LEASE).unlink(missing_ok=True)

        def fetch(path: Path) -> bytes | None:
            file = self.committed / path.name
            return file.read_bytes() if file.exists() else None

        return dataclasses.replace(Runtime.local(root), commit=commit, fetch=fetch, call=f"fc-{name}", pace=QUICK), run


def test_of_two_containers_that_start_at_once_exactly_one_goes_on(tmp_path):
    volume, outcome, both = Volume(tmp_path), {}, threading.Barrier(2)

    def start(name: str) -> None:
        lease = Lease(*volume.mount(name))
        both.wait()
        try:
            lease.take()
            outcome[name] = "goes on"
        except RunError:
            outcome[name] = "refused"

    threads = [threading.Thread(target=start, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.values()) == ["goes on", "refused"]
    note = Note.parse((volume.committed / LEASE).read_bytes())
    assert note is not None and outcome[note.owner.key.removeprefix("fc-")] == "goes on"


def test_container_that_slipped_through_the_race_loses_at_its_next_sign_of_life(tmp_path):
    volume = Volume(tmp_path)
    slow, fast = (Lease(*volume.mount(name)) for name in ("slow", "fast"))
    assert slow.read() is None  # it sees a free folder, and stalls
    fast.take()
    slow._write()
    with pytest.raises(RunError, match="function call fc-slow has taken it over"):
        fast.renew()
    slow.renew()

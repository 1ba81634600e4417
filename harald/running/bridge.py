"""The session of a job, for the processes that do its work: the one that holds the run answers them.

What goes over the socket is JSON, never a pickle; the socket lies in a folder that only this user can enter.
"""

import contextlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from harald import errors
from harald.errors import HaraldError
from harald.runtime import Runtime, Session


class Asking(Session):
    """A session that lives in another process of this machine. Raises what it raises; RunError where it is gone."""

    def __init__(self, address: str):
        self._connection = Client(address, "AF_UNIX")
        self._lock = threading.Lock()

    @property
    def stopping(self) -> bool:
        return self._ask("stopping")

    def check(self) -> None:
        self._ask("check")

    def progress(self, done: int, total: int, unit: str) -> None:
        self._ask("progress", done, total, unit)

    def score(self, name: str, value: float, lower_is_better: bool = False) -> None:
        self._ask("score", name, value, lower_is_better)

    def spent(self) -> str:
        return self._ask("spent")

    def add_seconds(self, seconds: float) -> None:
        self._ask("add_seconds", seconds)

    def commit(self) -> None:
        self._ask("commit")

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            with self._lock:
                self._connection.send_bytes(json.dumps([name, arguments]).encode())
                answer = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise errors.RunError("the process that holds this run is gone", "start the job again") from error
        match answer["error"]:
            case ["OSError", number, said]:
                raise OSError(number, said)
            case [kind, said]:
                raise getattr(errors, kind)(said)
        return answer["value"]


@contextlib.contextmanager
def answering(runtime: Runtime) -> Iterator[str]:
    """Inside, processes of this machine can ask this one's session. Gives the address for `Asking`."""
    session = runtime.session
    known: dict[str, Callable[..., Any]] = {
        "stopping": lambda: session.stopping,
        "check": session.check,
        "progress": session.progress,
        "score": session.score,
        "spent": session.spent,
        "add_seconds": session.add_seconds,
        "commit": runtime.commit,
    }
    folder = Path(tempfile.mkdtemp(prefix="harald-"))
    listener = Listener(str(folder / "socket"), "AF_UNIX")
    open_ones: list[Connection] = []

    def serve(connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                name, arguments = json.loads(connection.recv_bytes())
                connection.send_bytes(json.dumps(_answer(known[name], arguments)).encode())

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection = listener.accept()
                open_ones.append(connection)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield str(folder / "socket")
    finally:
        listener.close()
        for connection in open_ones:
            connection.close()
        shutil.rmtree(folder, ignore_errors=True)


def _answer(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        return {"value": function(*arguments), "error": None}
    except HaraldError as error:
        return {"value": None, "error": [type(error).__name__, str(error)]}
    except OSError as error:
        return {"value": None, "error": ["OSError", error.errno, error.strerror]}

"""Containers are forked from one process that has imported the large libraries, so that a start takes seconds less.

Of our own code a container still imports only what was uploaded.
"""

import asyncio
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PRELOADED = (
    "torch", "diffusers.pipelines.qwenimage", "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "peft", "PIL.Image", "pyarrow.parquet", "matplotlib.figure",
    "scipy.stats", "pydantic", "jinja2", "psutil", "trackio",
)  # fmt: skip
NEW_MOUNTS, NEW_USER = 0x00020000, 0x10000000


class Forked:
    """A process as asyncio shows one: what the service uses of it."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, stderr: asyncio.StreamReader):
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self.ended = asyncio.Event()

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode


class Zygote:
    """The process that is forked, from the service's side."""

    def __init__(self, environment: dict[str, str]):
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        passed_on = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], cwd="/", env={**passed_on, **quiet, **environment}
        )
        theirs.close()
        ours.setblocking(False)
        self.socket, self.forked = ours, dict[int, Forked]()
        self.born: asyncio.Queue[int] = asyncio.Queue()
        self.one_at_a_time = asyncio.Lock()
        self.tasks = set[asyncio.Future[None]]()

    async def fork(self, order: dict[str, Any]) -> Forked:
        """order: see `be_container`."""
        if not self.tasks:
            self.tasks.add(asyncio.ensure_future(self._listen()))
        pipes = [os.pipe() for _ in range(2)]
        async with self.one_at_a_time:
            message = json.dumps(order).encode()
            self.socket.setblocking(True)
            socket.send_fds(self.socket, [len(message).to_bytes(4, "big")], [write for _, write in pipes])
            self.socket.sendall(message)
            self.socket.setblocking(False)
            pid = await self.born.get()
        for _, write in pipes:
            os.close(write)
        self.forked[pid] = Forked(pid, *[await _reader(read) for read, _ in pipes])
        return self.forked[pid]

    async def _listen(self) -> None:
        rest = b""
        while data := await asyncio.get_running_loop().sock_recv(self.socket, 65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if "code" not in event:
                    self.born.put_nowait(event["pid"])
                else:
                    self.tasks.add(asyncio.ensure_future(self._end(**event)))

    async def _end(self, pid: int, code: int) -> None:
        while pid not in self.forked:
            await asyncio.sleep(0.01)
        self.forked[pid].returncode = code
        self.forked[pid].ended.set()


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(descriptor, "rb"))
    return reader


# ------------------------------------------------------------ in the zygote
def serve(service: socket.socket) -> None:
    """Until the service is gone."""
    alive = 0
    while True:
        ready, _, _ = select.select([service], [], [], 0.02)
        if ready:
            head, descriptors, _, _ = socket.recv_fds(service, 4, 2)
            if not head:
                return
            size, data = int.from_bytes(head, "big"), b""
            while len(data) < size:
                data += service.recv(size - len(data))
            pid = os.fork()
            if not pid:
                service.close()
                be_container(json.loads(data), *descriptors)
            alive += 1
            for descriptor in descriptors:
                os.close(descriptor)
            service.sendall(json.dumps({"pid": pid}).encode() + b"\n")
        while alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            alive -= 1
            service.sendall(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode() + b"\n")


def be_container(order: dict[str, Any], stdout: int, stderr: int) -> None:
    """environment; mount: lines of a shell, run in a mount namespace of its own; folder: to work in; hook: Python code
    that runs before anything is imported; program: of `python -m`. Does not return.
    """
    code: Any = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        own_mounts()
        subprocess.run(["sh", "-e", "-c", order["mount"]], check=True)
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["folder"])
        sys.dont_write_bytecode = True
        here = str(Path(__file__).parent)
        paths = order["environment"]["PYTHONPATH"].split(":")
        sys.path[:] = paths + [path for path in sys.path if path not in ("", here)]
        importlib.invalidate_caches()
        exec(order["hook"], {"__name__": "sitecustomize"})
        sys.argv = [order["program"]]
        runpy.run_module(order["program"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 (as the interpreter would)
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))


def own_mounts() -> None:
    """What unshare(1) does: with root's rights, or as root of a user namespace."""
    user, group, kinds = os.geteuid(), os.getegid(), NEW_MOUNTS
    if user:
        kinds |= NEW_USER
    if ctypes.CDLL(None, use_errno=True).unshare(kinds):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


if __name__ == "__main__":
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))

"""What the stand-in knows: objects of the app, calls, containers, logs."""

import asyncio
import base64
import collections
import contextlib
import functools
import json
import random
import shutil
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_proto import api_pb2

from tests.fakemodal.zygote import Forked, Zygote

SUCCESS = api_pb2.GenericResult.GENERIC_STATUS_SUCCESS
FAILURE = api_pb2.GenericResult.GENERIC_STATUS_FAILURE
INIT_FAILURE = api_pb2.GenericResult.GENERIC_STATUS_INIT_FAILURE


@dataclass
class Call:
    """One .remote(), .spawn() or .starmap(). retried_here: by the service (spawn), not the caller (remote)."""

    id: str
    function_id: str
    retried_here: bool
    inputs: dict[str, "Input"] = field(default_factory=dict)
    outputs: list[api_pb2.FunctionGetOutputsItem] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


@dataclass
class Input:
    id: str
    index: int
    payload: api_pb2.FunctionInput
    call: Call
    retries: int = 0
    kills: int = 0
    done: bool = False

    @property
    def token(self) -> str:
        """An unsigned JWT, as the client hands it back."""
        parts = ({"alg": "none"}, {"idx": self.index, "input_id": self.id, "function_call_id": self.call.id})
        return ".".join(base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts) + "."


def input_id_of(token: str) -> str:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["input_id"]


@dataclass
class Container:
    id: str
    function_id: str
    app_id: str
    process: Forked
    busy: Input | None = None
    served: int = 0
    stopping: bool = False
    preempted: bool = False
    rank: int = 0  # in its cluster
    startup_failure: api_pb2.GenericResult | None = None


@dataclass
class Volume:
    name: str
    version: int
    folder: Path
    commits: int = 0


@dataclass
class App:
    detached: bool
    functions: dict[str, str] = field(default_factory=dict)
    log: list[api_pb2.TaskLogsBatch] = field(default_factory=list)
    logged: asyncio.Condition = field(default_factory=asyncio.Condition)
    over: bool = False


class State:
    """Volumes and uploaded files under `folder` outlive the process, all else does not.

    secrets: name -> variables. container_env: what every container gets besides the variables of image and secrets.
    preempt: function -> glob under STATE/volumes; its first container is interrupted when such a file appears.
    disturb: function -> seconds; within so many from its begin, most of its calls are killed or preempted, twice at
    most. Every call's output then stands in STATE/calls/<call>.log.
    """

    def __init__(
        self,
        folder: Path,
        secrets: dict[str, dict[str, str]],
        container_env: dict[str, str],
        preempt: dict[str, str],
        disturb: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        self.folder, self.container_env, self.preempt = folder, container_env, preempt
        self.disturb = disturb or {}
        self.draw = random.Random(seed)
        (folder / "calls").mkdir(parents=True, exist_ok=True)
        (folder / "volumes").mkdir(parents=True, exist_ok=True)
        (folder / "files").mkdir(exist_ok=True)  # uploaded files by their hash
        shutil.rmtree(folder / "containers", ignore_errors=True)
        self.url = self.blob_url = ""
        self.ids: collections.Counter[str] = collections.Counter()
        self.apps: dict[str, App] = {}
        self.secrets: dict[str, tuple[str, dict[str, str]]] = {}
        self.volumes: dict[str, Volume] = {}
        self.mounts: dict[str, list[tuple[str, str]]] = {}  # (path in the container, hash)
        self.blobs: dict[str, bytes] = {}
        self.images: dict[str, list[str]] = {}  # all lines, those of the base images first
        self.functions: dict[str, api_pb2.Function] = {}
        self.gpus: dict[str, list[str]] = {}
        self.app_of: dict[str, str] = {}  # function -> app
        self.calls: dict[str, Call] = {}
        self.inputs: dict[str, Input] = {}
        self.queues: dict[str, collections.deque[Input]] = collections.defaultdict(collections.deque)
        self.queued = asyncio.Condition()
        self.containers: dict[str, Container] = {}
        self.container_log: list[dict[str, Any]] = []
        self.crashes: collections.Counter[str] = collections.Counter()
        self.broken: dict[str, api_pb2.GenericResult] = {}  # functions whose containers cannot start
        self.background: set[asyncio.Task] = set()
        for name, variables in secrets.items():
            self.secrets[self.new_id("st")] = (name, variables)

    @functools.cached_property
    def zygote(self) -> Zygote:
        """Started with the first app: commands about volumes need none."""
        return Zygote(self.container_env)

    def new_id(self, prefix: str) -> str:
        self.ids[prefix] += 1
        return f"{prefix}-{self.ids[prefix]}"

    def start(self, work: Coroutine) -> None:
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    async def log(self, container: Container, text: str, descriptor: int = 2) -> None:
        """A line for the client's terminal."""
        app = self.apps[container.app_id]
        if self.disturb and container.busy is not None:
            with (self.folder / "calls" / f"{container.busy.call.id}.log").open("a") as file:
                file.write(text)
        item = api_pb2.TaskLogs(data=text, timestamp=time.time(), file_descriptor=descriptor)
        async with app.logged:
            app.log.append(
                api_pb2.TaskLogsBatch(
                    task_id=container.id,
                    function_id=container.function_id,
                    items=[item],
                    entry_id=str(len(app.log) + 1),
                )
            )
            app.logged.notify_all()

    def dump(self) -> None:
        """What the app asked for and what happened, as STATE/app.json."""
        document = {
            "functions": {f.function_name: self._asked(id, f) for id, f in self.functions.items()},
            "containers": self.container_log,
            "volume_commits": {v.name: v.commits for v in self.volumes.values()},
        }
        (self.folder / "app.json").write_text(json.dumps(document, indent=1))

    def _asked(self, function_id: str, function: api_pb2.Function) -> dict[str, Any]:
        volumes = {m.mount_path: (self.volumes[m.volume_id], m.read_only) for m in function.volume_mounts}
        return {
            "gpu": self.gpus[function_id],
            "timeout": function.timeout_secs,
            "startup_timeout": function.startup_timeout_secs,
            "retries": function.retry_policy.retries,
            "cluster": function._experimental_group_size,
            "single_use_containers": function.single_use_containers,
            "secrets": [self.secrets[id][0] for id in function.secret_ids],
            "volumes": {
                path: {"name": v.name, "version": v.version, "read_only": read_only}
                for path, (v, read_only) in volumes.items()
            },
            "files": sorted(path for id in function.mount_ids for path, _ in self.mounts[id]),
            "image": self.images.get(function.image_id, []),
            "image_id": function.image_id,
        }


async def wait_for_change(condition: asyncio.Condition, seconds: float) -> None:
    """Until somebody notifies, at most so long."""
    async with condition:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(condition.wait(), max(0.01, seconds))

"""Containers: processes that run modal's own entrypoint with the uploaded files, volumes, secrets and variables."""

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

from modal_proto import api_pb2

from tests.fakemodal import sandbox
from tests.fakemodal.rpc import TASK_HEADER
from tests.fakemodal.state import FAILURE, INIT_FAILURE, SUCCESS, Container, Input, State

MAX_CONTAINERS = 4  # of one function at a time, if it does not say
GRACE = 30.0  # seconds from SIGINT to SIGKILL
# Seconds from the file to SIGINT. A checkpoint is followed by a commit, and modal's client loses a KeyboardInterrupt
# that comes while a blocking call of its own ends (synchronicity, _run_function_sync): the job would go on for GRACE.
PAUSE = 0.2
PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class Workers(State):
    async def scale(self, function_id: str) -> None:
        """Start containers of a function until every input has one, up to its limit."""
        limit = self.functions[function_id].autoscaler_settings.max_containers or MAX_CONTAINERS
        live = [c for c in self.running() if c.function_id == function_id and not c.stopping]
        wanted = min(limit, len(self.queues[function_id]) + sum(c.busy is not None for c in live))
        wanted = 0 if self.functions[function_id]._experimental_group_size else wanted
        for _ in range(wanted - len(live)):
            await self.start_container(function_id)
        if self.queues[function_id] and self.functions[function_id]._experimental_group_size:
            item = self.queues[function_id].popleft()
            for rank in range(self.functions[function_id]._experimental_group_size):
                await self.start_container(function_id, rank, item)
        async with self.queued:
            self.queued.notify_all()

    def running(self) -> list[Container]:
        return [c for c in self.containers.values() if c.process.returncode is None]

    async def start_container(self, function_id: str, rank: int = 0, item: Input | None = None) -> None:
        """item: what this container and the others of its cluster all get."""
        function, task_id = self.functions[function_id], self.new_id("ta")
        folder = self.folder / "containers" / task_id
        self.lay_out(folder, task_id, function_id)
        mounts = [(self.volumes[m.volume_id].folder, m.mount_path, m.read_only) for m in function.volume_mounts]
        process = await self.zygote.fork(
            {
                "environment": self.environment(folder, task_id, function),
                "mount": sandbox.mounting(mounts, folder, clustered=item is not None),
                "folder": str(folder / "root"),
                "hook": sandbox.only_uploaded_files(folder / "root", function.module_name.partition(".")[0]),
                "program": "modal._container_entrypoint",
            }
        )
        container = Container(task_id, function_id, self.app_of[function_id], process, busy=item, rank=rank)
        self.containers[task_id] = container
        self.container_log.append({"task": task_id, "function": function.function_name})
        self.start(self.watch(container))
        if pattern := self.preempt.pop(function.function_name, ""):
            self.start(self.interrupt_at(container, pattern))

    def lay_out(self, folder: Path, task_id: str, function_id: str) -> None:
        """The container's home with the uploaded files and what modal's entrypoint reads first."""
        function = self.functions[function_id]
        (folder / "root").mkdir(parents=True)
        for path, digest in (file for mount in function.mount_ids for file in self.mounts[mount]):
            target = folder / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.folder / "files" / digest, target)
        arguments = api_pb2.ContainerArguments(
            task_id=task_id,
            function_id=function_id,
            app_id=self.app_of[function_id],
            function_def=function,
            environment_name="main",
            app_layout=self.layout(self.app_of[function_id]),
        )
        (folder / "arguments.pb").write_bytes(arguments.SerializeToString())

    def environment(self, folder: Path, task_id: str, function: api_pb2.Function) -> dict[str, str]:
        variables = {name: value for name, value in os.environ.items() if name in PASSED_ON}
        for line in self.images.get(function.image_id, []):
            if match := re.match(r"ENV (\w+)=(.*)", line):
                variables[match[1]] = "".join(shlex.split(match[2]))
        for secret in function.secret_ids:
            variables |= self.secrets[secret][1]
        return variables | {
            "HOME": str(folder / "root"),
            "PYTHONPATH": str(folder / "root"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "MODAL_SERVER_URL": self.url,
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": task_id,
            "MODAL_IMAGE_ID": function.image_id,
            "MODAL_ENVIRONMENT": "main",
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_AUTO",
            "MODAL_CONTAINER_ARGUMENTS_PATH": str(folder / "arguments.pb"),
            "MODAL_OVERRIDE_HEADERS": f"{TASK_HEADER}:{task_id}",
            "MODAL_CONFIG_PATH": str(folder / "none.toml"),
            **self.container_env,
        }

    def layout(self, app_id: str) -> api_pb2.AppLayout:
        """The ids that modal's entrypoint looks its objects up by."""
        layout = api_pb2.AppLayout(function_ids=self.apps[app_id].functions)
        for function_id, owner in self.app_of.items():
            if owner == app_id:
                layout.objects.append(
                    api_pb2.Object(object_id=function_id, function_handle_metadata=self.handle(function_id))
                )
        for volume_id, volume in self.volumes.items():
            metadata = api_pb2.VolumeMetadata(version=volume.version, name=volume.name)
            layout.objects.append(api_pb2.Object(object_id=volume_id, volume_metadata=metadata))
        layout.objects.extend(api_pb2.Object(object_id=id) for id in (*self.secrets, *self.images, *self.mounts))
        return layout

    def handle(self, function_id: str) -> api_pb2.FunctionHandleMetadata:
        function = self.functions[function_id]
        return api_pb2.FunctionHandleMetadata(
            function_name=function.function_name,
            function_type=function.function_type,
            function_schema=function.function_schema,
            supported_input_formats=function.supported_input_formats,
            supported_output_formats=function.supported_output_formats,
            definition_id=f"de-{function_id}",
            app_id=self.app_of[function_id],
        )

    async def watch(self, container: Container) -> None:
        """Pass the output on; when the process ends, settle the input that it leaves behind."""

        async def pass_on(stream: asyncio.StreamReader | None, descriptor: int) -> None:
            while stream is not None and (line := await stream.readline()):
                await self.log(container, line.decode(errors="replace"), descriptor)

        process = container.process
        await asyncio.gather(pass_on(process.stdout, 1), pass_on(process.stderr, 2))
        code = await process.wait()
        entry = next(e for e in self.container_log if e["task"] == container.id)
        entry.update(exit_code=code, preempted=container.preempted)
        left = container.busy
        if left is not None and not left.done:
            if container.preempted and not container.stopping:
                self.queues[container.function_id].appendleft(left)  # rescheduled; no retry is used up
            else:
                result = api_pb2.GenericResult(status=FAILURE, exception=f"the container ended with exit code {code}")
                await self.finish(left, container.startup_failure or result, api_pb2.DATA_FORMAT_PICKLE)
        elif not container.served and not container.stopping and (code or container.startup_failure):
            await self.give_up_if_broken(container, code)
        if self.queues[container.function_id] and not container.stopping:
            await self.scale(container.function_id)
        self.dump()

    async def give_up_if_broken(self, container: Container, code: int) -> None:
        """A container that ends before it takes an input (import error, missing file) is tried once more."""
        function_id = container.function_id
        self.crashes[function_id] += 1
        if container.startup_failure is None and self.crashes[function_id] < 2:
            return
        result = container.startup_failure or api_pb2.GenericResult(
            status=INIT_FAILURE, exception=f"containers end at start-up (exit code {code}), see the log above"
        )
        self.broken[function_id] = result
        while self.queues[function_id]:
            await self.finish(self.queues[function_id].popleft(), result, api_pb2.DATA_FORMAT_PICKLE)

    async def disturb_call(self, container: Container, item: Input) -> None:
        """Kill or preempt the container of a call at a random moment, if the call is not over by then."""
        seconds = self.disturb.get(self.functions[container.function_id].function_name, 0.0)
        if not seconds or item.kills == 2 or self.draw.random() < 0.2:
            return
        item.kills += 1
        moment, preempted = self.draw.random() * seconds, self.draw.random() < 0.5
        await asyncio.sleep(moment)
        if container.busy is not item or container.process.returncode is not None:
            return
        container.preempted = preempted
        kind = "preempting" if preempted else "killing"
        await self.log(container, f"[stand-in] {kind} {container.id}\n")
        kill(container, signal.SIGINT if preempted else signal.SIGKILL)
        if preempted:
            await asyncio.sleep(GRACE)
            kill(container, signal.SIGKILL)

    async def interrupt_at(self, container: Container, pattern: str) -> None:
        """Preempt the container as soon as a file that matches the pattern appears in a volume."""
        while not any((self.folder / "volumes").glob(pattern)):
            if container.process.returncode is not None:
                return
            await asyncio.sleep(0.02)
        await asyncio.sleep(PAUSE)
        container.preempted = True
        await self.log(container, f"[stand-in] preempting {container.id}\n")
        kill(container, signal.SIGINT)
        await asyncio.sleep(GRACE)
        kill(container, signal.SIGKILL)

    async def finish(self, item: Input, result: api_pb2.GenericResult, data_format: int, started: float = 0.0) -> None:
        """An answer for the caller, or one more try."""
        function_id = item.call.function_id
        retries = self.functions[function_id].retry_policy.retries
        may_retry = item.call.retried_here and function_id not in self.broken and item.retries < retries
        if result.status != SUCCESS and may_retry:
            item.retries += 1
            self.queues[function_id].append(item)
            await self.scale(function_id)
            return
        async with item.call.changed:
            item.done = True
            item.call.outputs.append(
                api_pb2.FunctionGetOutputsItem(
                    result=result,
                    idx=item.index,
                    input_id=item.id,
                    data_format=data_format,  # pyrefly: ignore
                    input_started_at=started,
                    output_created_at=time.time(),
                    retry_count=item.retries,
                )
            )
            item.call.changed.notify_all()


def kill(container: Container, number: signal.Signals) -> None:
    if container.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(container.process.pid, number)

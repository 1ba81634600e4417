"""The RPCs about the app and its objects."""

import asyncio
import hashlib
import json
import re
import signal
import time
from collections.abc import AsyncIterator

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.fakemodal.state import SUCCESS, App, Volume, wait_for_change
from tests.fakemodal.workers import Workers, kill

BUILDER = "2025.06"
LOOK_UP = api_pb2.OBJECT_CREATION_TYPE_UNSPECIFIED
STOP_GRACE = 15.0  # seconds that containers get when their app ends


class Service(Workers):
    # ------------------------------------------------------------ client, app
    async def ClientHello(self, request):
        return api_pb2.ClientHelloResponse(image_builder_version=BUILDER)

    async def EnvironmentGetOrCreate(self, request):
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER)
        metadata = api_pb2.EnvironmentMetadata(name=request.deployment_name or "main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-1", metadata=metadata)

    async def AppCreate(self, request):
        app_id = self.new_id("ap")
        assert self.zygote  # imports while the command line uploads
        self.apps[app_id] = App(detached=request.app_state == api_pb2.APP_STATE_DETACHED)
        return api_pb2.AppCreateResponse(app_id=app_id, app_page_url=f"http://standin.invalid/{app_id}")

    async def AppHeartbeat(self, request):
        return None

    async def AppGetLayout(self, request):
        return api_pb2.AppGetLayoutResponse(app_layout=self.layout(request.app_id))

    async def AppPublish(self, request):
        self.apps[request.app_id].functions = dict(request.function_ids)
        self.dump()
        return api_pb2.AppPublishResponse(url=f"http://standin.invalid/{request.app_id}")

    async def AppClientDisconnect(self, request):
        completed = request.reason == api_pb2.APP_DISCONNECT_REASON_ENTRYPOINT_COMPLETED
        if completed or not self.apps[request.app_id].detached:
            await self.AppStop(request)

    async def AppStop(self, request):
        for container in self.running():
            container.stopping = container.stopping or container.app_id == request.app_id
        async with self.queued:
            self.queued.notify_all()
        self.start(self.end_app(request.app_id))

    async def end_app(self, app_id: str) -> None:
        deadline = time.monotonic() + STOP_GRACE
        while alive := [c for c in self.running() if c.app_id == app_id]:
            if time.monotonic() > deadline:
                for container in alive:
                    kill(container, signal.SIGKILL)
            await asyncio.sleep(0.05)
        app = self.apps[app_id]
        async with app.logged:
            app.over = True
            app.logged.notify_all()
        self.dump()

    async def AppGetLogs(self, request) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        app, position = self.apps[request.app_id], int(request.last_entry_id or 0)
        deadline = time.monotonic() + request.timeout
        while time.monotonic() < deadline:
            for batch in app.log[position:]:
                position += 1
                yield batch
            if app.over and position == len(app.log):
                yield api_pb2.TaskLogsBatch(app_done=True)
                return
            await wait_for_change(app.logged, 0.2)

    # ------------------------------------------------------------ secrets, volumes
    async def SecretGetOrCreate(self, request):
        name = request.deployment_name
        found = next((id for id, (known, _) in self.secrets.items() if known == name), None)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found in environment 'main'")
        missing = [key for key in request.required_keys if key not in self.secrets[found][1]]
        if missing:
            raise GRPCError(Status.FAILED_PRECONDITION, f"Secret '{name}' is missing key(s): {', '.join(missing)}")
        return api_pb2.SecretGetOrCreateResponse(secret_id=found, metadata=api_pb2.SecretMetadata(name=name))

    async def VolumeGetOrCreate(self, request):
        name = request.deployment_name
        found = next((id for id, volume in self.volumes.items() if volume.name == name), None)
        if found is None:
            folder = self.folder / "volumes" / name
            if request.object_creation_type == LOOK_UP and not folder.exists():
                raise GRPCError(Status.NOT_FOUND, f"Volume '{name}' not found in environment 'main'")
            folder.mkdir(exist_ok=True)
            note = self.folder / f"{name}.version"  # outlives this process, as the volume does
            version = request.version or (int(note.read_text()) if note.exists() else 1)
            note.write_text(str(version))
            found = self.new_id("vo")
            self.volumes[found] = Volume(name, version, folder)
        version = self.volumes[found].version
        metadata = api_pb2.VolumeMetadata(version=version, name=name)
        return api_pb2.VolumeGetOrCreateResponse(volume_id=found, version=version, metadata=metadata)

    async def VolumeCommit(self, request):
        self.volumes[request.volume_id].commits += 1
        return api_pb2.VolumeCommitResponse(skip_reload=True)

    async def VolumeReload(self, request):
        return None

    async def VolumeGetFile2(self, request):
        file = self.volumes[request.volume_id].folder / request.path
        if not file.is_file():
            raise GRPCError(Status.NOT_FOUND, f"No such file: {request.path}")
        blob_id, data = self.new_id("bl"), file.read_bytes()
        self.blobs[blob_id] = data
        urls = [f"{self.blob_url}/{blob_id}"] if data else []
        return api_pb2.VolumeGetFile2Response(get_urls=urls, size=len(data), start=0, len=len(data))

    async def VolumePutFiles2(self, request):
        """Files are put together from blocks, which are asked for by their hash until all are there."""
        folder, missing = self.volumes[request.volume_id].folder, []
        for number, file in enumerate(request.files):
            if request.disallow_overwrite_existing_files and (folder / file.path.lstrip("/")).exists():
                raise GRPCError(Status.ALREADY_EXISTS, f"{file.path}: already exists")
            for index, block in enumerate(file.blocks):
                if (name := block.contents_sha256.hex()) not in self.blobs:
                    url = f"{self.blob_url}/{name}"
                    missing.append(
                        api_pb2.VolumePutFiles2Response.MissingBlock(file_index=number, block_index=index, put_url=url)
                    )
        for file in [] if missing else request.files:
            path = folder / file.path.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(self.blobs[block.contents_sha256.hex()] for block in file.blocks)[: file.size])
        return api_pb2.VolumePutFiles2Response(missing_blocks=missing)

    async def VolumeListFiles2(self, request) -> AsyncIterator[api_pb2.VolumeListFiles2Response]:
        folder = self.volumes[request.volume_id].folder
        place = folder / request.path.strip("/")
        if not place.exists():
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
        found = [place] if place.is_file() else sorted(place.rglob("*") if request.recursive else place.iterdir())
        kinds = {True: api_pb2.FileEntry.DIRECTORY, False: api_pb2.FileEntry.FILE}
        yield api_pb2.VolumeListFiles2Response(
            entries=[
                api_pb2.FileEntry(
                    path=path.relative_to(folder).as_posix(), type=kinds[path.is_dir()], size=path.stat().st_size
                )
                for path in found
            ]
        )

    # ------------------------------------------------------------ uploaded files, images
    async def MountBatchedCheckExistence(self, request):
        missing = [h for h in request.sha256_hex_hashes if not (self.folder / "files" / h).exists()]
        return api_pb2.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def MountPutFile(self, request):
        path = self.folder / "files" / request.sha256_hex
        if request.WhichOneof("data_oneof"):
            path.write_bytes(self.blobs[request.data_blob_id] if request.data_blob_id else request.data)
        return api_pb2.MountPutFileResponse(exists=path.exists())

    async def MountGetOrCreate(self, request):
        mount_id = self.new_id("mo")  # without files: one of modal's own published mounts, which stays empty here
        self.mounts[mount_id] = [(file.filename, file.sha256_hex) for file in request.files]
        digest = hashlib.sha256(json.dumps(sorted(self.mounts[mount_id])).encode()).hexdigest()
        metadata = api_pb2.MountHandleMetadata(content_checksum_sha256_hex=digest)
        return api_pb2.MountGetOrCreateResponse(mount_id=mount_id, handle_metadata=metadata)

    async def BlobCreate(self, request):
        blob_id = self.new_id("bl")
        url = f"{self.blob_url}/{blob_id}"
        urls = api_pb2.UploadUrlList(items=[url])
        return api_pb2.BlobCreateResponse(blob_id=blob_id, upload_url=url, blob_ids=[blob_id], upload_urls=urls)

    async def BlobGet(self, request):
        return api_pb2.BlobGetResponse(download_url=f"{self.blob_url}/{request.blob_id}")

    async def ImageGetOrCreate(self, request):
        """Nothing is built; the lines are kept. Another id: another definition, or other files that it copies."""
        definition = api_pb2.Image.FromString(request.image.SerializeToString())
        context = sorted(self.mounts.get(definition.context_mount_id, []))
        definition.context_mount_id = ""
        content = definition.SerializeToString(deterministic=True) + json.dumps(context).encode()
        image_id = "im-" + hashlib.sha256(content).hexdigest()[:16]
        base = [line for image in request.image.base_images for line in self.images.get(image.image_id, [])]
        own = [line for line in request.image.dockerfile_commands if not (base and line.startswith("FROM base"))]
        self.images[image_id] = base + own
        python = re.search(r"python:(\d\.\d+)", " ".join(base + own))
        metadata = api_pb2.ImageMetadata(
            python_version_info=f"Python {python[1]}.0" if python else "", image_builder_version=request.builder_version
        )
        result = api_pb2.GenericResult(status=SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id=image_id, result=result, metadata=metadata)

    # ------------------------------------------------------------ functions
    async def FunctionPrecreate(self, request):
        function_id = request.existing_function_id or self.new_id("fu")
        metadata = api_pb2.FunctionHandleMetadata(
            function_name=request.function_name,
            function_type=request.function_type,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
            app_id=request.app_id,
        )
        return api_pb2.FunctionPrecreateResponse(function_id=function_id, handle_metadata=metadata)

    async def FunctionCreate(self, request):
        function_id = request.existing_function_id or self.new_id("fu")
        choices = [r.function for r in request.function_data.ranked_functions] or [request.function]  # a list of GPUs
        gpus = [f.resources.gpu_config for f in choices]
        self.gpus[function_id] = [f"{gpu.gpu_type}:{max(1, gpu.count)}" for gpu in gpus if gpu.gpu_type]
        self.functions[function_id] = function = choices[0]
        self.app_of[function_id] = request.app_id
        data = api_pb2.FunctionData(module_name=function.module_name, function_name=function.function_name)
        data.ranked_functions.add(rank=0, function=function)
        return api_pb2.FunctionCreateResponse(
            function_id=function_id, handle_metadata=self.handle(function_id), function=function, function_data=data
        )

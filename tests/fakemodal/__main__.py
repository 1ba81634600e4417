"""python -m tests.fakemodal --state STATE [...] -- modal run ...: one command against a service of its own."""

import argparse
import asyncio
import hashlib
import os
import signal
import sys
from pathlib import Path

import aiohttp.web
import grpclib.server
from modal._utils.grpc_utils import custom_detail_codec

from tests.fakemodal.calls import Calls
from tests.fakemodal.rpc import Rpc
from tests.fakemodal.workers import kill


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.fakemodal", description="a command against the stand-in")
    top.add_argument("--state", type=Path, required=True, help="folder of the volumes and of app.json")
    top.add_argument("--secret", action="append", default=[], metavar="NAME=KEY:VALUE,...")
    top.add_argument("--container-env", action="append", default=[], metavar="KEY=VALUE")
    top.add_argument("--preempt", action="append", default=[], metavar="FUNCTION:GLOB", help="glob under STATE/volumes")
    top.add_argument("--disturb", action="append", default=[], metavar="FUNCTION:SECONDS", help="kill within them")
    top.add_argument("--seed", type=int, default=0, help="of --disturb")
    top.add_argument("command", nargs="+", help="after --")
    return top


def secrets_of(flags: list[str]) -> dict[str, dict[str, str]]:
    pairs = [flag.partition("=")[::2] for flag in flags]
    return {name: dict(item.split(":", 1) for item in items.split(",")) for name, items in pairs}


async def serve_blobs(service: Calls) -> str:
    """Payloads too large for a message travel over HTTP. Returns the address."""

    async def put(request: aiohttp.web.Request) -> aiohttp.web.Response:
        body = await request.read()
        service.blobs[request.match_info["id"]] = body
        return aiohttp.web.Response(headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    async def get(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(body=service.blobs[request.match_info["id"]])

    app = aiohttp.web.Application(client_max_size=2**31)
    app.add_routes([aiohttp.web.put("/{id}", put), aiohttp.web.get("/{id}", get)])
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def run(flags: argparse.Namespace) -> int:
    preempt = dict(flag.split(":", 1) for flag in flags.preempt)
    container_env = dict(flag.split("=", 1) for flag in flags.container_env)
    disturb = {name: float(seconds) for name, seconds in (flag.split(":", 1) for flag in flags.disturb)}
    service = Calls(flags.state.resolve(), secrets_of(flags.secret), container_env, preempt, disturb, flags.seed)
    service.blob_url = await serve_blobs(service)
    rpc = Rpc(service)
    server = grpclib.server.Server([rpc], status_details_codec=custom_detail_codec)
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    service.url = f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    environment = {
        **os.environ,
        "MODAL_SERVER_URL": service.url,
        "MODAL_TOKEN_ID": "ak-standin",
        "MODAL_TOKEN_SECRET": "as-standin",
        "MODAL_CONFIG_PATH": str(service.folder / "none.toml"),
    }
    process = await asyncio.create_subprocess_exec(*flags.command, env=environment)
    code = await process.wait()
    for container in service.running():
        kill(container, signal.SIGKILL)
    if "zygote" in vars(service):
        service.zygote.process.kill()
    service.dump()
    if rpc.unimplemented:
        print(f"[stand-in] not implemented: {dict(rpc.unimplemented)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    exit_code = asyncio.run(run(parser().parse_args()))
    sys.stderr.flush()
    os._exit(exit_code)  # clients may still hold connections

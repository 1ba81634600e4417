"""The page on Modal: what the real client asks the service for, and that the application can be built and answers.

Web endpoints themselves are not covered by the stand-in: that Modal's proxy refuses a request without a token is not
tested here.
"""

import asyncio
from pathlib import Path

import grpclib.server
import httpx
import modal
import pytest
from modal._utils.grpc_utils import custom_detail_codec
from modal_proto import api_pb2

from harald import config, modal_runner
from harald.jobs import serve
from tests.fakemodal.__main__ import serve_blobs
from tests.fakemodal.calls import Calls
from tests.fakemodal.rpc import Rpc

pytestmark = pytest.mark.modal


async def definitions(folder: Path) -> dict[str, api_pb2.Function]:
    """Run the page's app against the stand-in; name -> what was asked for."""
    service = Calls(folder, {"HF_SECRET": {"HUGGINGFACE_TOKEN": "hf_dummy"}}, {}, {})
    service.blob_url = await serve_blobs(service)
    server = grpclib.server.Server([Rpc(service)], status_details_codec=custom_detail_codec)
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    url = f"http://127.0.0.1:{server._server.sockets[0].getsockname()[1]}"
    client = modal.Client(url, api_pb2.CLIENT_TYPE_CLIENT, ("ak-standin", "as-standin"))
    async with client, modal_runner.page_app.run.aio(client=client):
        asked = {function.function_name: function for function in service.functions.values()}
    server.close()
    return asked


def test_page_is_behind_proxy_auth_in_one_container(tmp_path):
    asked = asyncio.run(definitions(tmp_path))
    assert set(asked) == {"page"}  # the app of the page has no job, and the app of the jobs has no page
    page = asked["page"]
    assert page.webhook_config.type == api_pb2.WEBHOOK_TYPE_ASGI_APP
    assert page.webhook_config.requires_proxy_auth
    assert page.autoscaler_settings.max_containers == 1
    assert page.max_concurrent_inputs == config.PAGE_REQUESTS > config.full().serve.places


def test_hosted_page_answers_whom_the_proxy_lets_through(runtime):
    """The application that Modal gets, without a token of its own."""

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(serve.hosted(runtime, "tiny", ""))
        async with httpx.AsyncClient(transport=transport, base_url="https://harald-page.modal.run") as client:
            answers = [await client.get("/"), await client.post("/api/draw"), await client.post("/gradio_api/upload")]
        return [answer.status_code for answer in answers]

    assert asyncio.run(statuses()) == [200, 415, 404]
    assert len(list((runtime.output / "serve").glob("*/fingerprint.json"))) == 1

"""The job that serves the page: who may connect, and with what."""

import asyncio
import re
import socket

import httpx
import pytest
import uvicorn

from harald import cli
from harald.jobs.serve import is_local


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False), ("localhost.example.org", False), ("", False)],
)  # fmt: skip
def test_only_loopback_addresses_are_local(host, local):
    assert is_local(host) is local


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--no-auth", "--host", "0.0.0.0"], "--no-auth with --host 0.0.0.0"),
        (["--no-auth", "--token", "x" * 20], "give one of the two"),
        (["--token", "short"], "--token has 5 characters"),
        (["--train-run", "nobody"], "nobody"),
        (["--port", "70000"], "127.0.0.1:70000 cannot be used"),
        (["--overrides", '{"serve.places": 0}'], "serve.places is 0"),
    ],
)
def test_unsafe_or_impossible_start_is_refused(flags, says, tmp_path, monkeypatch):
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", "--preset", "tiny", *flags])
    assert says in str(stop.value.code) and "\n  fix: " in str(stop.value.code)
    assert not (tmp_path / "output").exists()


def test_port_in_use_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as stop:
        cli.main(["serve", "--preset", "tiny", "--port", str(taken.getsockname()[1])])
    assert "cannot be used: " in str(stop.value.code) and "choose another --port" in str(stop.value.code)


def test_address_with_a_new_token_is_printed_once_and_is_the_one_that_opens_the_page(tmp_path, monkeypatch, caplog):
    """All but the waiting for visitors."""
    started = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: started.append((server.config, sockets[0])))
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    with caplog.at_level("INFO"):
        cli.main(["serve", "--preset", "tiny", "--port", "0", "--run-name", "page"])
    ((settings, listening),) = started
    with listening:
        host, port = listening.getsockname()
    (address,) = re.findall(r"open (http://\S+)", caplog.text)
    place, _, token = address.partition("?token=")
    assert (place, host) == (f"http://127.0.0.1:{port}/", "127.0.0.1") and len(token) >= 32
    assert caplog.text.count(token) == 1 and not settings.access_log

    async def ask(query: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(settings.app), base_url=place) as client:
            return (await client.get(query, follow_redirects=True)).status_code

    assert [asyncio.run(ask(query)) for query in (f"?token={token}", "?token=x", "")] == [200, 401, 401]
    written = list((tmp_path / "output/serve/page").iterdir())
    assert {path.name for path in written} == {"config.json", "inputs.json", "fingerprint.json", "status.json"}
    assert not any(token in path.read_text() for path in written)


def test_no_auth_opens_the_page_to_this_machine_alone(tmp_path, monkeypatch, caplog):
    started = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: started.append((server.config, sockets[0])))
    monkeypatch.setenv("HARALD_ROOT", str(tmp_path))
    with caplog.at_level("INFO"):
        cli.main(["serve", "--preset", "tiny", "--port", "0", "--no-auth"])
    ((settings, listening),) = started
    listening.close()
    assert "open http://127.0.0.1:" in caplog.text and "token" not in caplog.text

    async def ask(host: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(settings.app), base_url="http://x") as client:
            return (await client.get("/", headers={"Host": host})).status_code

    assert [asyncio.run(ask(host)) for host in ("127.0.0.1:7860", "evil.example")] == [200, 421]

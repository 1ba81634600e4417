"""Who gets in, and to what: every route is asked without the token, and Gradio's own stay closed with it."""

import asyncio
import re
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import BaseRoute, Mount, Route

from harald.web.access import ACTIONS, FOLDERS, LOCAL_HOSTS, PAGES
from harald.web.app import web_app
from tests.web.server import AUTH, TOKEN, running, studio


@pytest.fixture(scope="module")
def gate():
    return web_app(studio(with_encoder=False), TOKEN, LOCAL_HOSTS)


@pytest.fixture(scope="module")
def address():
    with running(studio(with_encoder=False)) as address:
        yield address


def every_route(routes: list[BaseRoute], prefix: str = "") -> list[tuple[str, str]]:
    """(method, path) of the application and of what is mounted in it, Gradio included."""
    found = []
    for route in routes:
        if isinstance(included := getattr(route, "original_router", None), APIRouter):
            found += every_route(included.routes, prefix)
        elif isinstance(route, Mount):
            found += every_route(route.routes, prefix + route.path)
        elif isinstance(route, Route | APIRoute):
            path = re.sub(r"{[^}]*}", "x", prefix + route.path)
            found += [(method, path) for method in sorted(route.methods or ())]
    return found


def ask(gate, method: str, path: str, **options) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(gate, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    return asyncio.run(call())


def test_every_route_without_the_token_is_refused(gate):
    routes = every_route(gate.app.routes)
    assert len(routes) > 40 and ("POST", "/gradio_api/upload") in routes and ("POST", "/api/draw") in routes
    for method, path in [*routes, ("GET", "/nothing"), ("GET", "/assets/x.js")]:
        assert ask(gate, method, path).status_code == 401, (method, path)
        assert ask(gate, method, path, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_gradios_own_routes_are_closed_even_with_the_token(gate):
    """Uploads, files, queue, proxy, editing: what is not on our list does not exist."""
    closed = 0
    for method, path in every_route(gate.app.routes):
        is_page = path in PAGES or path.startswith(FOLDERS)
        if (is_page and method in ("GET", "HEAD")) or (path in ACTIONS and method == "POST"):
            continue
        assert ask(gate, method, path, headers=AUTH).status_code in (404, 405), (method, path)
        closed += 1
    assert closed > 30


@pytest.mark.parametrize(
    "path",
    ["/static/../../../etc/passwd", "/assets/..%2f..%2f..%2fetc/passwd", "/page/../page.py", "/page/%2e%2e/app.py"],
)
def test_open_folders_give_only_what_lies_in_them(address, path):
    answer = httpx.get(address + path, headers=AUTH)
    assert answer.status_code in (403, 404) and "root:" not in answer.text and "import" not in answer.text


def test_first_visit_gives_a_cookie_that_opens_the_page_and_is_not_the_token(address):
    with httpx.Client(base_url=address) as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/config", params={"token": TOKEN}).status_code == 401
        first = client.get("/", params={"token": TOKEN})
        assert first.status_code == 303 and first.headers["location"] == "/"
        cookie = first.headers["set-cookie"]
        assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert client.get("/").status_code == 200
        assert client.get("/page/page.js").status_code == 200


@pytest.mark.parametrize(
    "cookie", ["harald=", "harald=wrong", f"harald={TOKEN}", "harald=\x80", '"; harald', "other=x"]
)
def test_other_cookies_open_nothing(gate, cookie):
    assert ask(gate, "GET", "/", headers={"Cookie": cookie.encode("latin-1")}).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_requests_that_another_site_makes_a_browser_send_are_refused(gate, headers):
    assert ask(gate, "POST", "/api/draw", headers={**AUTH, **headers}).status_code == 403
    assert ask(gate, "POST", "/api/draw", headers={**AUTH, "Origin": "http://localhost"}).status_code == 415


def test_another_host_name_is_refused_where_only_this_machine_may_connect():
    """A name of somebody else's that leads to 127.0.0.1 (DNS rebinding) must not open a page without a token."""
    gate = web_app(studio(with_encoder=False), "", LOCAL_HOSTS)
    assert ask(gate, "GET", "/", headers={"Host": "evil.example:7860"}).status_code == 421
    assert ask(gate, "GET", "/", headers={"Host": "localhost:7860"}).status_code == 200
    assert ask(gate, "GET", "/", headers={"Host": "[::1]:7860"}).status_code == 200


def test_page_names_no_other_host_that_a_browser_would_ask(address):
    html = httpx.get(address, headers=AUTH).text
    loaded = re.findall(r"""<(?:script|link|img|iframe|source)[^>]*?(?:src|href)=["']([^"']+)""", html)
    assert any("assets" in url for url in loaded)
    assert [url for url in loaded if urlsplit(url).netloc not in ("", urlsplit(address).netloc)] == []
    assert "googleapis" not in html and 'analytics_enabled":true' not in html.replace(" ", "")


def test_answers_forbid_other_hosts_frames_and_caches(address):
    headers = httpx.get(address, headers=AUTH).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'" and policy["frame-ancestors"] == "'none'"
    assert not any("http" in value or "*" in value for value in policy.values())
    assert headers["cache-control"] == "no-store" and headers["referrer-policy"] == "no-referrer"


def test_preset_and_what_is_missing_are_said_on_the_page(address):
    html = httpx.get(address, headers=AUTH).text
    assert "Preset tiny" in html and "pictures are noise" in html
    assert "No trained encoder is loaded" in html and "Choose or drop pictures" not in html

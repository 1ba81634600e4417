"""Who may ask for what. Every request passes here first; what is not on the list does not exist."""

import hashlib
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "harald"
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})

# Gradio has routes for uploads, files, proxies, queues and editing. The page needs none of them, so they are closed.
PAGES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/startup-events"})
FOLDERS = ("/assets/", "/static/", "/page/", "/gradio_api/heartbeat/")
ACTIONS = frozenset({"/api/person", "/api/inspect", "/api/draw"})

# 'unsafe-inline' and 'unsafe-eval' are what Gradio's own page needs; nothing is loaded from another host.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'none'"
)
STRANGER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>harald</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<body style="font: 1rem/1.5 system-ui, sans-serif; max-width: 30rem; margin: 15vh auto; padding: 0 1.5rem">
<h1>harald</h1><p>{text}</p></body></html>"""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class Gate:
    """ASGI application in front of `app`.

    token: asked of every request (address once, then a cookie; or Authorization: Bearer). Empty: somebody in front of
    us asks, or only this machine can connect. hosts: what the Host header may say; None: anything.
    """

    app: ASGIApp
    token: str
    hosts: frozenset[str] | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            answer = self.refusal(scope)
            await (answer or self.app)(scope, receive, with_headers(scope, send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    def refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None: it may pass."""
        headers, path, method = Headers(scope=scope), scope["path"], scope["method"]
        host = headers.get("host", "")
        if self.hosts is not None and urlsplit(f"//{host}").hostname not in self.hosts:
            return refuse(421, "This page answers only under the address that it was started with.")
        if self.token and not self.is_known(headers):
            return self.first_visit(scope)
        if method in ("GET", "HEAD"):
            known = path in PAGES or (path.startswith(FOLDERS) and ".." not in path)
            return None if known else refuse(404, "There is no such page.")
        if path not in ACTIONS:
            return refuse(404, "There is no such page.")
        if method != "POST":
            return refuse(405, "Use POST.")
        if is_foreign(headers, host):
            return refuse(403, "This request comes from another site.")
        return None

    def is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), self.token.encode())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        visited = cookie is not None and secrets.compare_digest(cookie.value.encode(), self.visit.encode())
        return bearer or visited

    def first_visit(self, scope: Scope) -> Response:
        """The address with the right token gives the cookie and leads to the address without it."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] != "/" or not secrets.compare_digest(given.encode(), self.token.encode()):
            text = "Open the address with its token, as it was printed when the page was started."
            wants_page = "text/html" in Headers(scope=scope).get("accept", "")
            return HTMLResponse(STRANGER.format(text=text), 401) if wants_page else refuse(401, text)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self.visit, httponly=True, samesite="lax", secure=scope["scheme"] == "https")
        return answer

    @property
    def visit(self) -> str:
        """What the cookie holds: not the token itself, because a cookie is also sent to other ports of the host."""
        return hashlib.sha256(b"harald visit " + self.token.encode()).hexdigest()


def is_foreign(headers: Headers, host: str) -> bool:
    """Whether a page of another site makes the browser send this."""
    origin = headers.get("origin")
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc != host
    )


def refuse(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status, headers={"Connection": "close"} if status >= 400 else None)


def with_headers(scope: Scope, send: Send) -> Send:
    """What a visitor sent or got is kept in no cache."""
    keep = scope["path"].startswith(("/assets/", "/static/"))

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.update(HEADERS if keep else {**HEADERS, "Cache-Control": "no-store"})
        await send(message)

    return send_with_headers

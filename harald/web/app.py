"""The parts put together: gate, actions, page."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles

from harald.errors import HaraldError
from harald.web import page
from harald.web.access import Gate
from harald.web.answers import Refused
from harald.web.api import BROKEN, routes
from harald.web.desk import Desk
from harald.web.studio import Studio

CLOSE = {"Connection": "close"}


def web_app(studio: Studio, token: str = "", hosts: frozenset[str] | None = None) -> Gate:
    """An ASGI application. token and hosts: see Gate."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(routes(studio, Desk(studio.config.serve.places)))
    app.mount("/page", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HaraldError, _cannot)
    app.add_exception_handler(Exception, _broken)
    return Gate(page.mounted(app, studio), token, hosts)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    headers = {503: {"Retry-After": "5"}, 408: CLOSE, 413: CLOSE}.get(error.status, {})
    return JSONResponse({"error": error.text}, error.status, headers=headers)


def _cannot(request: Request, error: Exception) -> JSONResponse:
    """What a visitor can mend: a prompt or a person file that does not fit."""
    return JSONResponse({"error": str(error)}, 422)


def _broken(request: Request, error: Exception) -> JSONResponse:
    """The server logs the trace; the visitor gets none of it."""
    return JSONResponse({"error": BROKEN}, 500, headers=CLOSE)  # the server closes the connection after an exception

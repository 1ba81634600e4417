"""The three things a visitor can ask for. A request carries all that it needs; nothing is kept after its answer.

Answers that take time are lines of JSON: how it stands ({"waiting", "of"} or {"progress"}), at last the result or
{"error"}.
"""

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from harald.config import Serve
from harald.data.images import png
from harald.errors import HaraldError
from harald.injection.person_file import MAX_BYTES, to_bytes
from harald.records import PersonTokens
from harald.web.answers import Refused
from harald.web.desk import Desk, Place, Work
from harald.web.pictures import decode
from harald.web.studio import Order, Studio
from harald.web.uploads import Form, read_form

log = logging.getLogger(__name__)

BROKEN = "Something went wrong on our side. The operator finds the reason in the log."


class Stream(StreamingResponse):
    """The lines of one visitor; the place is given back however it ends."""

    def __init__(self, place: Place, work: Work):
        self.place = place
        super().__init__(_lines(place, work), media_type="application/x-ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.place.leave()


def routes(studio: Studio, desk: Desk) -> APIRouter:
    """POST /api/person, /api/inspect and /api/draw."""
    router, limits = APIRouter(), studio.config.serve

    @router.post("/api/person")
    async def person(request: Request) -> Response:
        """Pictures (files) and consent=yes -> {"person": file in base64, "groups", "references"}."""
        if studio.encoder is None:
            raise Refused(409, "No trained encoder is loaded here. Upload a person file, or draw from text alone.")
        max_pixels = studio.encoder.config.max_pixels

        def check(form: Form) -> Work:
            if form.fields.get("consent") != "yes":
                raise Refused(403, "Confirm first that the person agreed.")
            if not form.files:
                raise Refused(400, "There is no picture in the form.")
            pictures = [decode(data, number, limits, max_pixels) for number, data in enumerate(form.files, 1)]
            return lambda place: described(studio.read_pictures(pictures))

        return await serve(request, desk, limits, limits.pictures, limits.picture_bytes, check)

    @router.post("/api/inspect")
    async def inspect(request: Request) -> Response:
        """A person file -> {"groups", "references"} of a file that can be drawn with here."""
        place = desk.enter()
        try:
            form = await read_form(request, limits, 1, MAX_BYTES)
            if len(form.files) != 1:
                raise Refused(400, "There is no person file in the form.")
            found = await run_in_threadpool(studio.read_file, form.files[0])
        finally:
            place.leave()
        return JSONResponse(facts(found))

    @router.post("/api/draw")
    async def draw(request: Request) -> Response:
        """The fields of Order, and a person file if there is one -> {"pictures": [PNG in base64], "left_out": groups of
        the person that made room for the prompt's words}.
        """

        def check(form: Form) -> Work:
            order = read_order(form.fields, limits)
            found = studio.read_file(form.files[0]) if form.files else None
            prompt, prepared, won = studio.prepare(order, found)

            def work(place: Place) -> dict[str, Any]:
                pictures = studio.draw(prompt, prepared, order, place.step)
                return {"pictures": [_png(picture) for picture in pictures], "left_out": won}

            return work

        return await serve(request, desk, limits, 1, MAX_BYTES, check)

    return router


async def serve(
    request: Request, desk: Desk, limits: Serve, max_files: int, file_bytes: int, check: Callable[[Form], Work]
) -> Response:
    """A place first, then the body, then its check, then the line."""
    place = desk.enter()
    try:
        form = await read_form(request, limits, max_files, file_bytes)
        work = await run_in_threadpool(check, form)
    except BaseException:
        place.leave()
        raise
    return Stream(place, work)


async def _lines(place: Place, work: Work) -> AsyncIterator[bytes]:
    async for state in place.serve(work):
        yield _line(state)
    outcome = await place.outcome()
    if isinstance(outcome, HaraldError):
        yield _line({"error": str(outcome)})
    elif isinstance(outcome, BaseException):
        log.error("a request failed", exc_info=outcome)
        yield _line({"error": BROKEN})
    else:
        yield _line(outcome)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"


def read_order(fields: dict[str, str], limits: Serve) -> Order:
    """Raises Refused (422) with the field's name."""
    if len(fields.get("prompt", "")) > limits.prompt_characters:
        raise Refused(422, f"prompt: at most {limits.prompt_characters} characters")
    keep = {"keep": tuple(filter(None, fields["keep"].split(",")))} if "keep" in fields else {}
    try:
        return Order.model_validate({**fields, **keep})
    except ValidationError as error:
        first = error.errors()[0]
        field, said = ".".join(map(str, first["loc"])), first["msg"]
        said = "say what is to be drawn" if field == "prompt" else said
        raise Refused(422, f"{field}: {said}") from error


def described(person: PersonTokens) -> dict[str, Any]:
    return {"person": base64.b64encode(to_bytes(person)).decode(), **facts(person)}


def facts(person: PersonTokens) -> dict[str, Any]:
    return {"groups": [name for name, _ in person.groups], "references": person.references}


def _png(picture: Image.Image) -> str:
    return base64.b64encode(png(picture)).decode()

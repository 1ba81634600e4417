"""Reading a request's body: into memory, and no further than the limits."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import Request
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from harald.config import Serve
from harald.web.answers import Refused

MAX_FIELDS, MAX_FIELD_BYTES = 16, 64 * 2**10


@dataclass(frozen=True)
class Form:
    """files: contents in their order. Names of files are never looked at."""

    fields: dict[str, str]
    files: list[bytes]


class MemoryParser(MultiPartParser):
    """Starlette's parser, with a limit for each file, and without its temporary files."""

    spool_max_size = 0  # SpooledTemporaryFile: 0 never goes to a disk

    def __init__(self, request: Request, limits: Serve, max_files: int, file_bytes: int):
        super().__init__(
            request.headers,
            _counted(request, limits.request_bytes),
            max_files=max_files,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        self.file_bytes, self.bytes_of_part = file_bytes, 0

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.bytes_of_part = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.bytes_of_part += end - start
        if self.bytes_of_part > self.file_bytes:
            raise Refused(413, f"A file may have at most {_megabytes(self.file_bytes)}.")
        super().on_part_data(data, start, end)


async def read_form(request: Request, limits: Serve, max_files: int, file_bytes: int) -> Form:
    """Raises Refused: 408 too slow, 413 too large, 415 no form, 400 malformed or too many files."""
    kind, _, _ = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "multipart/form-data":
        raise Refused(415, "Send a form (multipart/form-data).")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > limits.request_bytes:
        raise Refused(413, f"A request may have at most {_megabytes(limits.request_bytes)}.")
    try:
        async with asyncio.timeout(limits.upload_seconds):
            parsed = await MemoryParser(request, limits, max_files, file_bytes).parse()
    except TimeoutError as error:
        raise Refused(408, f"The upload took longer than {limits.upload_seconds} seconds.") from error
    except MultiPartException as error:
        raise Refused(400, f"The form is not valid: {error.message}") from error
    except (UnicodeError, ValueError, LookupError) as error:
        raise Refused(400, "The form is not valid.") from error
    except ClientDisconnect as error:
        raise Refused(400, "The upload was broken off.") from error
    fields = {name: value for name, value in parsed.multi_items() if isinstance(value, str)}
    files = [await value.read() for _, value in parsed.multi_items() if not isinstance(value, str)]
    await parsed.close()
    return Form(fields, files)


async def _counted(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body, for as long as it is within the limit, whatever its Content-Length said."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise Refused(413, f"A request may have at most {_megabytes(limit)}.")
        yield chunk


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"

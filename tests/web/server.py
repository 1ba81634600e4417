"""The real application on the tiny models, behind a real server; and a watch over what it writes."""

import contextlib
import dataclasses
import io
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import uvicorn
from PIL import Image

from harald import config
from harald.web.app import web_app
from harald.web.studio import Studio
from tests import models

TOKEN = "a-token-for-tests"
AUTH = {"Authorization": f"Bearer {TOKEN}"}


def studio(with_encoder: bool = True, steps: int = 2, **limits: int) -> Studio:
    tiny = config.tiny()
    tiny = dataclasses.replace(
        tiny,
        generate=dataclasses.replace(tiny.generate, steps=steps),
        serve=dataclasses.replace(tiny.serve, **limits),
    )
    encoder = models.encoder() if with_encoder else None
    return Studio(tiny, models.base(), encoder, "run/step" if with_encoder else "")


@contextlib.contextmanager
def running(made: Studio, token: str = TOKEN) -> Iterator[str]:
    """The address of a server in a thread of this process."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(
        uvicorn.Config(web_app(made, token), log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended at once"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def picture(side: int = 64, kind: str = "PNG", seed: int = 0, **options) -> bytes:
    """Coloured noise: a picture of its size in bytes."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def form(**fields: str) -> list[tuple[str, tuple[None, str]]]:
    """A form of fields alone, in the shape that httpx sends as multipart/form-data."""
    return [(name, (None, value)) for name, value in fields.items()]


class Writes:
    """Names of files that this process opened for writing while it watched, temporary ones without a name too."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.watching = False
        sys.addaudithook(self._hook)  # cannot be taken away again, but stays silent

    def _hook(self, event: str, arguments: tuple) -> None:
        if self.watching and event == "open":
            name, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and name != os.devnull:
                self.names.append(str(name))

    @contextlib.contextmanager
    def watch(self) -> Iterator[list[str]]:
        self.watching = True
        try:
            yield self.names
        finally:
            self.watching = False

"""100 malformed uploads and requests, each of which must end in a clear 4xx; nothing crashes and nothing is written.

python -m tests.web.hostile --into docs/results/production.json
"""

import argparse
import io
import json
import logging
import pickle
import random
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image
from safetensors.torch import save

from harald.injection.person_file import KEY, MAX_BYTES, to_bytes
from harald.records import PersonTokens
from tests import results
from tests.web.server import AUTH, Writes, form, picture, running, studio

log = logging.getLogger(__name__)

LIMITS = {"picture_bytes": 4_000_000, "request_bytes": 6_000_000, "pictures": 4, "upload_seconds": 5}
PROMPT = "photo of <person> in a park"
UNCLEAR = re.compile(r"Traceback|File \"|/(root|home|usr|tmp|work|site-packages)/|\bline \d+, in ")
NAMES = (
    "../../etc/passwd",
    "..\\..\\x",
    "/etc/cron.d/x",
    "C:\\x",
    "x\x00.png",
    "a" * 5000,
    "<script>",
    "$(id)",
    "\u202egnp.x",
    "",
)


@dataclass(frozen=True)
class Case:
    """A request that must be refused. options: for httpx."""

    name: str
    method: str
    path: str
    options: dict[str, Any]

    def send(self, client: httpx.Client) -> httpx.Response:
        return client.request(self.method, self.path, **{"headers": AUTH, **self.options})


# ------------------------------------------------------------ what is sent
def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, body: bytes) -> bytes:
    """A PNG with any size in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def animation(kind: str) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green")]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def pictures(seed: int) -> Iterator[tuple[str, bytes]]:
    """Files that are no picture to be read."""
    zeros = zlib.compress(bytes(3_000_000), 9)
    text, scan = zlib.compress(bytes(90_000_000), 9), b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    yield from (
        ("bomb: 50000 x 50000 in the header", png(50_000, 50_000, zeros)),
        ("bomb: 2^31 x 2^31 in the header", png(2**31 - 1, 2**31 - 1, zeros)),
        ("bomb: 9000 x 9000, all there", png(9000, 9000, zlib.compress(bytes(9000 * 27001), 9))),
        ("bomb: compressed text", png(64, 64, b"")[:33] + chunk(b"zTXt", b"a\0\0" + text)),
        ("strip: 60000 x 1", png(60_000, 1, zeros)),
        ("0 x 0", png(0, 0, b"")),
        ("1 x 1", picture(1)),
        ("pixels are missing", png(64, 64, zlib.compress(b"short"))),
        ("pixels are no zlib", png(64, 64, b"\xff" * 100)),
        ("animated PNG", animation("PNG")),
        ("animated WebP", animation("WEBP")),
        ("JPEG of 500 scans", picture(kind="JPEG")[:-2] + scan * 500 + b"\xff\xd9"),
        ("more bytes than allowed", picture(1300)),
        ("empty", b""),
        ("zeros", bytes(10_000)),
        ("text", b"no picture"),
        ("HTML", b"<html><script>alert(1)</script>"),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("SVG with entities", b"<!DOCTYPE s [<!ENTITY a 'aaaa'>]><svg>&a;</svg>"),
        ("PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(%pipe%id) (w) file\n"),
        ("PDF", b"%PDF-1.7\n1 0 obj\n"),
        ("ELF", b"\x7fELF" + bytes(60)),
        ("pickle", pickle.dumps({"a": 1})),
        ("PNG's signature alone", b"\x89PNG\r\n\x1a\n"),
        ("JPEG's signature alone", b"\xff\xd8\xff\xe0"),
        ("RIFF without WebP", b"RIFF\x10\x00\x00\x00WEBPVP8 "),
    )  # fmt: skip
    for kind in ("GIF", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000"):
        yield f"wrong type: {kind}", picture(kind=kind)
    draw = random.Random(seed)
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = picture(kind=kind)
        for _ in range(4):
            cut = draw.randrange(10, len(whole) * 3 // 4)
            yield f"{kind} cut after {cut} bytes", whole[:cut]


def person_files() -> Iterator[tuple[str, bytes]]:
    """Files that are no person."""
    groups = (("face", 2), ("hair", 2))

    def person(tokens: torch.Tensor, base: str = "harald/tiny-qwen-image") -> bytes:
        return to_bytes(PersonTokens(tokens, groups, "output", base))

    good = person(torch.ones(4, 64))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps([1]))
    described = json.loads(json.loads(good[8 : 8 + int.from_bytes(good[:8], "little")])["__metadata__"][KEY])

    def saying(**changes: Any) -> bytes:
        return save({"tokens": torch.ones(4, 64)}, {KEY: json.dumps(described | changes)})

    yield from (
        ("pickle", pickle.dumps({"tokens": [1.0]})),
        ("zip as torch.save writes it", archive.getvalue()),
        ("empty", b""),
        ("cut", good[:-10]),
        ("header of 2^63 bytes", struct.pack("<Q", 2**63) + good[8:]),
        ("header that is no JSON", struct.pack("<Q", 16) + b"{{{{{{{{{{{{{{{{"),
        ("header of deep JSON", struct.pack("<Q", 200_000) + b"[" * 200_000),
        ("offsets beyond the end", good.replace(b'"data_offsets":[0,1024]', b'"data_offsets":[0,9024]')),
        ("more bytes than allowed", good + bytes(MAX_BYTES)),
        ("no metadata", save({"tokens": torch.ones(4, 64)})),
        ("metadata that is no JSON", save({"tokens": torch.ones(4, 64)}, {KEY: "{"})),
        ("metadata of deep JSON", save({"tokens": torch.ones(4, 64)}, {KEY: "[" * 100_000})),
        ("metadata is a list", save({"tokens": torch.ones(4, 64)}, {KEY: "[]"})),
        ("another tensor", save({"weights": torch.ones(4, 64)}, {KEY: json.dumps(described)})),
        ("not a number", person(torch.full((4, 64), float("nan")))),
        ("another width", person(torch.ones(4, 8))),
        ("another base model", person(torch.ones(4, 64), "../../x")),
        ("no groups", saying(groups=[])),
        ("negative group", saying(groups=[["face", -2], ["hair", 6]])),
        ("groups of another size", saying(groups=[["face", 9]])),
        ("unknown point", saying(point="middle")),
        ("notes that are no texts", saying(notes={"a": {}})),
        ("another format", saying(format="harald-person-9")),
    )  # fmt: skip


def requests(good: bytes) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """Requests that are wrong in themselves: (name, method, path, options)."""
    file = [("f", ("f", good))]
    plain = {"headers": AUTH | {"Content-Type": "multipart/form-data"}, "content": b"x"}
    boundary = {**AUTH, "Content-Type": "multipart/form-data; boundary=b"}
    charset, part = {**AUTH, "Content-Type": "multipart/form-data; boundary=b; charset=x"}, b"--b\r\nA: b\r\n\r\nx\r\n"
    megabytes = (bytes(10**6) for _ in range(7))
    yield from (
        ("JSON", "POST", "/api/draw", {"json": {"prompt": PROMPT}}),
        ("no type", "POST", "/api/draw", {"content": b"x"}),
        ("no boundary", "POST", "/api/draw", plain),
        ("broken boundary", "POST", "/api/draw", {"headers": boundary, "content": b"--c\r\n\r\nx"}),
        ("part without a name", "POST", "/api/draw", {"headers": boundary, "content": part + b"--b--"}),
        ("unknown charset", "POST", "/api/draw", {"headers": charset, "content": part}),
        ("part's header of a megabyte", "POST", "/api/draw", {"headers": boundary, "content": part[:7] + bytes(10**6)}),
        ("50 fields", "POST", "/api/draw", {"files": form(**{f"f{i}": "x" for i in range(50)})}),
        ("field of a megabyte", "POST", "/api/draw", {"files": form(prompt="x" * 10**6)}),
        ("9 files", "POST", "/api/person", {"files": [("f", ("f", picture()))] * 9}),
        ("7 MB", "POST", "/api/person", {"files": [("f", ("f", bytes(3_500_000)))] * 2}),
        ("7 MB without a length", "POST", "/api/person", {"headers": boundary, "content": megabytes}),
        ("no consent", "POST", "/api/person", {"files": [("f", ("f", picture()))]}),
        ("no prompt", "POST", "/api/draw", {"files": file}),
        ("no placeholder", "POST", "/api/draw", {"files": file, "data": {"prompt": "a park"}}),
        ("broken placeholder", "POST", "/api/draw", {"files": file, "data": {"prompt": "<person:../x>"}}),
        ("long prompt", "POST", "/api/draw", {"files": form(prompt="x" * 50_000)}),
        ("prompt of too many tokens", "POST", "/api/draw", {"files": form(prompt="\U0001f600" * 1900)}),
        ("seed is a word", "POST", "/api/draw", {"files": form(prompt="a park", seed="x")}),
        ("seed is 10^400", "POST", "/api/draw", {"files": form(prompt="a park", seed="1" * 400)}),
        ("strength is not a number", "POST", "/api/draw", {"files": form(prompt="a park", strength="nan")}),
        ("strength is 1e9", "POST", "/api/draw", {"files": form(prompt="a park", strength="1e9")}),
        ("domain is a path", "POST", "/api/draw", {"files": form(prompt="a park", domain="../../x")}),
        ("unknown group", "POST", "/api/draw", {"files": file, "data": {"prompt": PROMPT, "keep": "../x"}}),
        ("no token", "POST", "/api/draw", {"headers": {}}),
        ("wrong token", "POST", "/api/draw", {"headers": {"Authorization": "Bearer " + "x" * 5000}}),
        ("wrong cookie", "GET", "/", {"headers": {"Cookie": "harald=x; harald=\"\\"}}),
        ("another site", "POST", "/api/draw", {"headers": AUTH | {"Origin": "http://evil.example"}}),
        ("file of the machine", "GET", "/gradio_api/file=/etc/passwd", {}),
        ("file by a path", "GET", "/static/..%2f..%2f..%2f..%2fetc/passwd", {}),
        ("Gradio's upload", "POST", "/gradio_api/upload", {"files": file}),
        ("Gradio's queue", "POST", "/gradio_api/queue/join", {"json": {"fn_index": 0, "data": []}}),
        ("Gradio's proxy", "GET", "/gradio_api/proxy=http://127.0.0.1:1/", {}),
        ("another method", "DELETE", "/api/draw", {}),
    )  # fmt: skip


def cases(seed: int, count: int = 100) -> list[Case]:
    """Of every kind some, the same ones for the same seed; the kinds alternate, so that a few are a fair sample."""
    good = to_bytes(PersonTokens(torch.ones(4, 64), (("face", 2), ("hair", 2)), "output", "harald/tiny-qwen-image"))
    consent = {"consent": "yes"}
    uploads = [
        Case(
            f"picture: {what}",
            "POST",
            "/api/person",
            {"files": [("f", (NAMES[i % len(NAMES)], data))], "data": consent},
        )
        for i, (what, data) in enumerate(pictures(seed))
    ]
    persons = [
        Case(f"person file: {what}", "POST", "/api/inspect" if i % 2 else "/api/draw",
             {"files": [("f", (NAMES[i % len(NAMES)], data))], "data": {"prompt": PROMPT}})
        for i, (what, data) in enumerate(person_files())
    ]  # fmt: skip
    wrong = [Case(f"request: {what}", *rest) for what, *rest in requests(good)]
    every = [*uploads, *persons, *wrong]
    random.Random(seed).shuffle(every)
    return every[:count]


# ------------------------------------------------------------ what comes of it
@dataclass(frozen=True)
class Outcome:
    """clear: 4xx with a sentence that shows nothing of the inside; crashed: 5xx or no answer."""

    clear: int
    crashed: int
    written: list[str]
    unclear: list[str]


def attack(address: str, chosen: list[Case]) -> Outcome:
    """After all of them a good request must get its picture."""
    clear, crashed, unclear = 0, 0, []
    with httpx.Client(base_url=address, timeout=60) as client, Writes().watch() as written:
        for case in chosen:
            try:
                answer = case.send(client)
            except httpx.TransportError as error:
                crashed += 1
                unclear.append(f"{case.name}: {type(error).__name__}")
                continue
            text = error_of(answer)
            if 400 <= answer.status_code < 500 and text and not UNCLEAR.search(answer.text):
                clear += 1
            else:
                unclear.append(f"{case.name}: {answer.status_code} {answer.text[:200]}")
            crashed += answer.status_code >= 500
    return Outcome(clear, crashed + (not serves(address)), list(written), unclear)


def error_of(answer: httpx.Response) -> str:
    """The sentence of a refusal, '' if there is none."""
    try:
        return str(answer.json().get("error", ""))
    except (ValueError, AttributeError):
        return ""


def rows(outcome: Outcome, count: int) -> list[dict[str, Any]]:
    """One for each bar."""
    values = (
        (f"hostile requests: answered with a clear 4xx, of {count}", count, ">=", outcome.clear),
        (f"hostile requests: crashes, of {count}", 0, "<=", outcome.crashed),
        (f"hostile requests: files opened for writing, of {count}", 0, "<=", len(outcome.written)),
    )
    return results.compared(values)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.web.hostile", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--into", type=Path, help="result file; rows of other names in it are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    made = studio(**LIMITS)
    chosen = cases(flags.seed, flags.count)
    with running(made) as address:
        outcome = attack(address, chosen)
    log.info("%s", Counter(case.name.partition(":")[0] for case in chosen))
    for line in [*outcome.unclear, *(f"written: {name}" for name in outcome.written)]:
        log.info("%s", line)
    measured = rows(outcome, len(chosen))
    results.conclude(measured, flags.into, flags.seed)


def serves(address: str) -> bool:
    """Whether a good request still gets its picture."""
    answer = httpx.post(f"{address}/api/draw", headers=AUTH, files=form(prompt="a park"), timeout=60)
    return answer.status_code == 200 and "pictures" in json.loads(answer.text.splitlines()[-1])


if __name__ == "__main__":
    main()

"""What a visitor gets, over HTTP: the same bytes as the jobs give, from memory alone; and clear answers to errors."""

import base64
import io
import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from harald.data.images import load_picture
from harald.encoder.predict import predict
from harald.generation.draw import draw
from harald.generation.persons import without_groups
from harald.injection.person_file import from_bytes, to_bytes
from harald.injection.prompt import ANY, parse
from tests.web.server import AUTH, Writes, form, picture, running, studio

PROMPT = "photo of <person> in a park"
WRITES = Writes()


@pytest.fixture(scope="module")
def made():
    return studio(request_bytes=6_000_000, picture_bytes=4_000_000, pictures=3)


@pytest.fixture(scope="module")
def client(made):
    with running(made) as address, httpx.Client(base_url=address, headers=AUTH, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def person(made) -> bytes:
    return to_bytes(predict(made.encoder, [load_picture(io.BytesIO(picture()))], "run/step"))


def lines(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def pixels(encoded: str) -> bytes:
    return Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").tobytes()


def files(*contents: bytes, name: str = "x") -> list:
    return [("files", (name, content)) for content in contents]


def ask_person(client: httpx.Client, *contents: bytes, name: str = "x", **fields: str) -> httpx.Response:
    return client.post("/api/person", files=files(*contents, name=name), data={"consent": "yes", **fields})


def test_person_file_is_that_of_predict_tokens(client, made):
    contents = [picture(seed=1), picture(seed=2, kind="WEBP", lossless=True)]
    answer = lines(ask_person(client, *contents))[-1]
    expected = predict(made.encoder, [load_picture(io.BytesIO(c)) for c in contents], "run/step")
    assert base64.b64decode(answer["person"]) == to_bytes(expected)
    assert (answer["groups"], answer["references"]) == (["face", "hair", "worn", "outfit"], 2)


def test_pictures_are_those_of_generate(client, made, person):
    fields = {"prompt": PROMPT, "seed": "5", "strength": "1.5", "keep": "face,hair"}
    answer = lines(client.post("/api/draw", data=fields, files=files(person)))[-1]
    tokens = from_bytes(person, "person").tokens[:8]
    for encoded, persons in zip(answer["pictures"], ({ANY: tokens}, {}), strict=True):
        expected = draw(made.base, parse(PROMPT), persons, [5], made.config, "photo", "output", 1.5)[0]
        assert pixels(encoded) == expected.tobytes()


def test_domain_is_asked_for_in_words_and_a_prompt_that_says_another_one_is_refused(client, person):
    def drawn(prompt: str, **fields: str) -> dict:
        sent = client.post("/api/draw", data={"prompt": prompt, "compare": "false", **fields}, files=files(person))
        return lines(sent)[-1] if sent.status_code == 200 else sent.json()

    assert drawn("<person> at sea", domain="comic") == drawn("comic of <person> at sea") != drawn("<person> at sea")
    assert "begins with 'photo of' and the domain is 'comic'" in drawn(PROMPT, domain="comic")["error"]


def test_words_of_the_prompt_win_over_the_person_and_the_answer_says_so(client, made, person):
    def asked(prompt: str, **fields: str) -> dict:
        sent = client.post("/api/draw", data={"prompt": prompt, "compare": "false", **fields}, files=files(person))
        return lines(sent)[-1]

    silent, worded = asked(PROMPT), asked("photo of <person> with red hair in a park")
    assert (silent["left_out"], worded["left_out"]) == ([], ["hair"])
    tokens = without_groups(from_bytes(person, "person"), ["hair"]).tokens
    prompt = parse("photo of <person> with red hair in a park")
    expected = draw(made.base, prompt, {ANY: tokens}, [0], made.config, "photo", "output", 1.0)[0]
    assert pixels(worded["pictures"][0]) == expected.tobytes()
    assert asked("photo of <person> with red hair in a park", keep="face,worn,outfit") == worded | {"left_out": []}
    last = asked("photo of <person> with red hair in a park", keep="hair")
    assert last["left_out"] == [], "not the last group that a person has"


def test_without_a_person_the_prompt_is_drawn_as_it_is(client):
    one, other = (
        lines(client.post("/api/draw", files=form(prompt=p)))[-1]["pictures"]
        for p in ("a red house", "photo of <person>")
    )
    assert len(one) == len(other) == 1 and one != other


def test_uploaded_person_file_is_described(client, person):
    answer = client.post("/api/inspect", files=files(person))
    assert answer.json() == {"groups": ["face", "hair", "worn", "outfit"], "references": 1}


def test_nothing_of_a_visitor_is_written_or_logged(client, person, caplog):
    """Also pictures of more than the megabyte from which a form parser would use a temporary file."""
    big = picture(1000)
    assert len(big) > 2_000_000
    with caplog.at_level("DEBUG"), WRITES.watch() as written:
        lines(ask_person(client, big, name="anna-private.png"))
        lines(client.post("/api/draw", data={"prompt": "secret-prompt of <person>"}, files=files(person)))
        ask_person(client, b"secret-bytes", name="anna-private.png")
    assert written == []
    ours = " ".join(r.getMessage() for r in caplog.records if not r.name.startswith("http"))  # not the client's
    assert not [word for word in ("anna", "secret") if word in ours]


def test_watch_would_see_a_temporary_file(tmp_path):
    with WRITES.watch() as written:
        (tmp_path / "x").write_bytes(b"")
    assert written.pop() == str(tmp_path / "x")


def test_picture_from_a_telephone_is_upright_and_its_further_pictures_are_left_out(client, made):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    content = picture(kind="MPO", exif=exif, save_all=True, append_images=[Image.new("RGB", (64, 64))])
    answer = lines(ask_person(client, content))[-1]
    assert answer["references"] == 1


ORDERS = [
    ({"prompt": ""}, 422, "prompt"),
    ({"prompt": "  "}, 422, "prompt"),
    ({"prompt": "x" * 3000}, 422, "at most 2000"),
    ({"prompt": "<person> " + "\U0001f600" * 1900}, 422, "at most 1024"),
    ({"prompt": "a park"}, 422, "no placeholder"),
    ({"prompt": "<person:ben>"}, 422, "no person file"),
    ({"prompt": "< person >"}, 422, "malformed placeholder"),
    ({"prompt": PROMPT, "seed": "-1"}, 422, "seed"),
    ({"prompt": PROMPT, "seed": str(2**63)}, 422, "seed"),
    ({"prompt": PROMPT, "strength": "nan"}, 422, "strength"),
    ({"prompt": PROMPT, "strength": "99"}, 422, "strength"),
    ({"prompt": PROMPT, "domain": "../x"}, 422, "domain"),
    ({"prompt": PROMPT, "keep": "hare"}, 422, "did you mean 'hair'"),
    ({"prompt": PROMPT, "keep": ""}, 422, "no group of the person is left"),
]


@pytest.mark.parametrize(("fields", "status", "says"), ORDERS)
def test_wrong_order_is_refused_before_it_waits_in_line(client, person, fields, status, says):
    answer = client.post("/api/draw", data={"keep": "face", **fields}, files=files(person))
    assert answer.status_code == status and says in answer.json()["error"]


def test_pictures_need_consent_a_reader_and_a_picture(client):
    assert ask_person(client, picture(), consent="no").status_code == 403
    assert client.post("/api/person", files=form(consent="yes")).status_code == 400
    with running(studio(with_encoder=False)) as address:
        answer = httpx.post(f"{address}/api/person", headers=AUTH, data={"consent": "yes"}, files=files(picture()))
        assert answer.status_code == 409 and "No trained encoder" in answer.json()["error"]


def test_too_many_files_and_too_large_ones_are_refused(client):
    assert ask_person(client, *[picture()] * 4).status_code == 400
    answer = ask_person(client, picture(1300))
    assert answer.status_code == 413 and "A file may have at most 4 MB" in answer.json()["error"]


def test_picture_of_too_many_pixels_is_refused_by_its_header():
    with running(studio(picture_pixels=10_000)) as address:
        answer = httpx.post(f"{address}/api/person", headers=AUTH, data={"consent": "yes"}, files=files(picture(101)))
    assert answer.status_code == 413 and "101 x 101 pixels" in answer.json()["error"]


def raw(client: httpx.Client, head: str, body: bytes = b"") -> tuple[bytes, int]:
    """(the answer, bytes of the body that were taken before it came), without the help of an HTTP library."""
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        token = AUTH["Authorization"]
        connection.sendall(f"POST /api/person HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{head}\r\n\r\n".encode())
        sent = 0
        try:
            while sent < len(body):
                sent += connection.send(body[sent : sent + 65536])
        except OSError:
            pass
        return connection.recv(4096), sent


FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'


def test_content_length_beyond_the_limit_is_refused_before_the_body(client):
    answer, _ = raw(client, f"{FORM}\r\nContent-Length: 7000000")
    assert answer.startswith(b"HTTP/1.1 413") and b"at most 6 MB" in answer


def test_body_beyond_the_limit_is_refused_while_it_streams(client):
    """Chunked, so that no length is said; the rest of a gigabyte is never sent."""
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    start = b"%x\r\n%s\r\n" % (len(PART), PART)
    answer, sent = raw(client, f"{FORM}\r\nTransfer-Encoding: chunked", start + chunk * 1600)
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 60_000_000


def test_request_of_files_that_are_each_small_enough_is_refused_while_it_streams(client):
    body = (PART + bytes(3_500_000) + b"\r\n" for _ in range(2))
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/api/person", headers=headers, content=body)
    assert answer.status_code == 413 and answer.json()["error"] == "A request may have at most 6 MB."


def test_upload_that_never_ends_is_given_up():
    with running(studio(upload_seconds=1)) as address, httpx.Client(base_url=address) as client:
        answer, _ = raw(client, f"{FORM}\r\nContent-Length: 1000", PART)
        assert answer.startswith(b"HTTP/1.1 408")


def test_error_of_our_own_shows_neither_path_nor_trace(made, person, monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("/root/secret/path")

    with running(made) as address, httpx.Client(base_url=address, headers=AUTH, timeout=60) as client:
        monkeypatch.setattr(type(made.base), "draw", broken)
        answer = client.post("/api/draw", data={"prompt": PROMPT, "keep": "face"}, files=files(person))
        assert "secret" not in answer.text and "Traceback" not in answer.text
        assert lines(answer)[-1]["error"].startswith("Something went wrong on our side")
        monkeypatch.setattr("harald.web.api.read_order", broken)
        answer = client.post("/api/draw", data={"prompt": PROMPT}, files=files(person))
        assert answer.status_code == 500 and "secret" not in answer.text and "error" in answer.json()
        monkeypatch.undo()
        assert lines(client.post("/api/draw", data={"prompt": PROMPT, "keep": "face"}, files=files(person)))

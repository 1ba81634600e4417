"""The page in a real browser: Debian's Chromium, or Google's Chrome, driven by Playwright."""

import io
import shutil
from collections.abc import Iterator

import pytest
from PIL import Image

from harald.injection.person_file import from_bytes
from tests.web.server import TOKEN, picture, running, studio

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ALIVE = "#person .card:not([inert])"
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(studio(pictures=3)) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def telephone(chromium):
    """A small screen; what one page has loaded is in the cache for the next."""
    with chromium.new_context(viewport={"width": 390, "height": 844}) as context:
        yield context


@pytest.fixture
def page(telephone, address):
    """Ends with a check that the browser asked no other host and reported no error."""
    page = telephone.new_page()
    asked, errors = set(), []
    page.on("request", lambda request: asked.add(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{address}/?token={TOKEN}")
    page.wait_for_selector(ALIVE)
    yield page
    assert not errors
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    page.close()


def uploads(*contents: bytes) -> list[dict]:
    return [{"name": "a.png", "mimeType": "image/png", "buffer": content} for content in contents]


def make_person(page) -> bytes:
    """From two pictures; gives the saved file."""
    page.set_input_files("#pictures", uploads(picture(seed=1), picture(seed=2)))
    page.wait_for_function("document.querySelectorAll('#thumbs img').length == 2")  # the script may come last
    assert page.locator("#read").is_disabled()
    page.check("#consent")
    page.click("#read")
    page.wait_for_selector("#chosen", state="visible")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "person.safetensors"
    return download.value.path().read_bytes()


def draw(page) -> list[bytes]:
    """The pictures that a visitor saves."""
    page.click("#draw")
    page.wait_for_selector("#draw:has-text('Draw')")
    saved = []
    for link in page.locator("#pictures-drawn a").all():
        with page.expect_download() as download:
            link.click()
        saved.append(download.value.path().read_bytes())
    return saved


def test_from_pictures_to_a_saved_picture_at_the_width_of_a_telephone(page):
    person = from_bytes(make_person(page), "saved")
    assert person.references == 2
    assert "A person, from 2 pictures." in page.inner_text("#who")
    with_person, without = draw(page)
    assert with_person != without
    assert not page.locator("#pictures-drawn.old").count()  # dimmed while others are drawn
    assert Image.open(io.BytesIO(with_person)).size == (64, 64)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert "pictures are noise" in page.inner_text("#top") and "agreed" in page.inner_text("#consent-note")


def test_groups_strength_and_seed_change_the_picture_and_a_saved_file_brings_the_person_back(page):
    file = make_person(page)
    first = draw(page)
    page.get_by_label("hair", exact=True).uncheck()
    without_hair = draw(page)
    assert without_hair[0] != first[0] and without_hair[1] == first[1]
    page.click("#forget")
    page.wait_for_selector("#choose", state="visible")
    alone = draw(page)
    assert alone == [first[1]]
    page.set_input_files("#person-file", {"name": "p", "mimeType": "", "buffer": file})
    page.wait_for_selector("#chosen", state="visible")
    assert draw(page) == first
    page.get_by_label("Seed").fill("9")
    assert draw(page)[0] != first[0]


def test_what_the_words_of_the_prompt_left_out_is_said(page):
    make_person(page)
    page.fill("#prompt textarea", "<person> with red hair in a park")
    draw(page)
    assert page.inner_text("#draw-state") == "Taken from the prompt's words, not from the person: hair."
    page.fill("#prompt textarea", "<person> in a park")
    draw(page)
    assert page.inner_text("#draw-state") == ""


def test_errors_are_said_where_they_belong(page):
    page.set_input_files("#pictures", uploads(b"no picture"))
    page.check("#consent")
    page.click("#read")
    page.wait_for_selector("#person-state.error")
    assert page.inner_text("#person-state") == "Picture 1 is not a PNG, JPEG or WebP."
    assert page.locator("#thumbs .unseen").count() == 1
    page.set_input_files("#pictures", uploads(*[picture()] * 3))
    assert "At most 3 pictures" in page.inner_text("#person-state")
    page.set_input_files("#person-file", {"name": "p", "mimeType": "", "buffer": b"no person"})
    page.wait_for_selector("#person-state:has-text('cannot be read')")
    page.locator("#prompt textarea").fill("   ")
    page.click("#draw")
    page.wait_for_selector("#draw-state.error")
    assert page.inner_text("#draw-state") == "prompt: say what is to be drawn"
    assert page.evaluate("document.querySelector('#draw-state').getBoundingClientRect().bottom <= innerHeight")


def test_address_without_the_token_shows_nothing(chromium, address):
    context = chromium.new_context()
    answer = context.new_page().goto(address)
    assert answer.status == 401 and "with its token" in context.pages[0].inner_text("body")
    context.close()

"""Screenshots of the page in all its states, on a wide screen and on a telephone's, to be looked at.

    python -m tests.web.screens --out screens
    python -m tests.web.screens --out screens --look-right 27 --into docs/results/production.json

What a program can see is counted: nothing may be wider than the screen, nothing may fail, and what the page says after
"Draw" must be on the screen. How it looks is for a person to judge: --look-right is how many were found good by eye.
"""

import argparse
import contextlib
import io
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageDraw

from tests import results
from tests.web.server import AUTH, TOKEN, form, running, studio
from tests.web.test_browser import ALIVE, BROWSER, uploads

log = logging.getLogger(__name__)

SCREENS = (("wide", 1280, 900, "light"), ("telephone", 390, 844, "light"), ("telephone_dark", 390, 844, "dark"))
PLACES = 3
STEPS = 300  # of a drawing: progress can be seen


@dataclass
class Tour:
    """Of one screen. wrong: what a program can see."""

    page: Any
    folder: Path
    screen: str
    wrong: list[str] = field(default_factory=list)
    taken: int = 0

    def shot(self, name: str, must_see: str = "") -> None:
        """must_see: a selector that has to be within the screen, without scrolling."""
        self.page.wait_for_timeout(250)
        size = self.page.viewport_size
        if must_see:
            box = self.page.locator(must_see).bounding_box()
            if not box or box["y"] < 0 or box["y"] + box["height"] > size["height"]:
                self.wrong.append(f"{self.screen} {name}: {must_see} is not on the screen ({box})")
        width = self.page.evaluate("document.documentElement.scrollWidth")
        if width != size["width"]:
            self.wrong.append(f"{self.screen} {name}: {width} pixels wide, the screen has {size['width']}")
        self.taken += 1
        self.page.screenshot(path=self.folder / f"{self.screen}_{self.taken}_{name}.png", full_page=True)


@contextlib.contextmanager
def others(address: str, count: int) -> Iterator[None]:
    """So many visitors who draw, until the end or until they are let go."""
    gone, inside = threading.Event(), threading.Semaphore(0)

    def draw() -> None:
        order = {"headers": AUTH, "files": form(prompt="a park"), "timeout": 120}
        with httpx.stream("POST", f"{address}/api/draw", **order) as answer:
            inside.release()
            for _ in answer.iter_lines():
                if gone.is_set():
                    return

    threads = [threading.Thread(target=draw) for _ in range(count)]
    for thread in threads:
        thread.start()
        inside.acquire()
    try:
        yield
    finally:
        gone.set()
        for thread in threads:
            thread.join()


def person_pictures() -> list[bytes]:
    """Sketches: something that looks like a person in the little previews."""
    made = []
    for number, colour in enumerate(("lightblue", "tan", "lightgreen")):
        image, file = Image.new("RGB", (256, 256), colour), io.BytesIO()
        pen = ImageDraw.Draw(image)
        pen.ellipse((70, 60, 186, 220), fill="bisque")
        pen.pieslice((56, 30, 200, 170), 180, 360, fill="firebrick")
        pen.arc((100, 150 + 5 * number, 156, 196), 20, 160, fill="brown", width=5)
        image.save(file, "PNG")
        made.append(file.getvalue())
    return made


def tour(page: Any, address: str, folder: Path, screen: str, pictures: list[bytes]) -> Tour:
    """Every state of the page, in the order in which a visitor meets them."""
    seen = Tour(page, folder, screen)
    page.on("pageerror", lambda error: seen.wrong.append(f"{screen}: {error}"))
    page.goto(address)
    seen.shot("without_token")
    page.goto(f"{address}/?token={TOKEN}")
    page.wait_for_selector(ALIVE)
    seen.shot("empty", "#read")
    page.set_input_files("#pictures", uploads(b"no picture", *pictures[:2]))
    page.wait_for_function("document.querySelectorAll('#thumbs img').length == 3")
    page.check("#consent")
    page.click("#read")
    page.wait_for_selector("#person-state.error")
    seen.shot("no_picture", "#person-state")
    page.click("#thumbs button:first-child")
    page.click("#read")
    page.wait_for_selector("#chosen", state="visible")
    seen.shot("person", "#save")
    with others(address, PLACES - 1):
        page.click("#draw")
        page.wait_for_selector("#draw-state:has-text('In line')")
        seen.shot("in_line", "#draw-state")
        page.wait_for_selector("#draw-state progress", timeout=120_000)
        seen.shot("progress", "#draw-state progress")
        page.wait_for_selector("#draw:has-text('Draw')", timeout=120_000)
        seen.shot("drawn")
    with others(address, PLACES):
        page.click("#draw")
        page.wait_for_selector("#draw-state.error")
        seen.shot("busy", "#draw-state")
    time.sleep(1)  # the places are free again
    page.locator("#prompt textarea").fill("  ")
    page.click("#draw")
    page.wait_for_selector("#draw-state.error:has-text('prompt')")
    seen.shot("no_prompt", "#draw-state")
    return seen


def measure(folder: Path) -> tuple[int, list[str]]:
    """Number of screenshots, and what a program sees in them that is wrong."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(parents=True, exist_ok=True)
    taken, wrong = 0, []
    with running(studio(pictures=3, places=PLACES, steps=STEPS)) as address, sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        browser = playwright.chromium.launch(executable_path=BROWSER, args=flags)
        for name, width, height, scheme in SCREENS:
            with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
                seen = tour(context.new_page(), address, folder, name, person_pictures())
                taken, wrong = taken + seen.taken, wrong + seen.wrong
        browser.close()
    return taken, wrong


def rows(taken: int, wrong: list[str], look_right: int | None) -> list[dict[str, Any]]:
    values = [(f"page: screenshots with something wrong that a program sees, of {taken}", 0, "<=", len(wrong))]
    if look_right is not None:
        values.append((f"page: screenshots that look right by eye, of {taken}", taken, ">=", look_right))
    return results.compared(values)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.web.screens", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/screens"), help="folder of the screenshots")
    parser.add_argument("--look-right", type=int, help="how many of them were looked at and found good")
    parser.add_argument("--into", type=Path, help="result file; rows of other names in it are kept")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    taken, wrong = measure(flags.out)
    for line in wrong:
        log.info("%s", line)
    measured = rows(taken, wrong, flags.look_right)
    results.conclude(measured, flags.into, seed=0)


if __name__ == "__main__":
    main()

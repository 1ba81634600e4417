"""Small state folders on disk and states in memory, for the tests of harald.data."""

import io
from pathlib import Path

from PIL import Image

from harald.records import State, View


def png(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 40).save(buffer, "PNG")  # noise: long enough to be cut in the middle
    return buffer.getvalue()


PNG = png()
SCENES = ("laughing, in a park", "angry, on a street", "sad, at home", "winking, on a beach", "calm, in the snow")


def write_view(folder: Path, name: str, prompt: str | None = None, picture: bytes = PNG) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(picture)
    scene = SCENES[sum(name.encode()) % len(SCENES)]
    (folder / f"{name}.txt").write_text(prompt or f"{name.split('_')[0]} of a man with a red beard, {scene}")


def write_state(base: Path, number: int, views: int = 2) -> Path:
    folder = base / f"seed_{number}"
    for domain in ("photo", "comic"):
        for view in range(1, views + 1):
            write_view(folder, f"{domain}_view_{view:02d}")
    return folder


def memory_state(number: int = 1, base: int = 1, **views: int) -> State:
    """memory_state(7, photo=3, comic=1): a state without files."""
    made = tuple(
        View(domain, i, Path(f"/d/{base}/seed_{number}/{domain}_view_{i:02d}.png"), "a man", "<person>", 64, 64)
        for domain in sorted(views)
        for i in range(1, views[domain] + 1)
    )
    return State(f"seed_{number}", base, made)

"""Tiny data sets in the real layout, for tests."""

import random
from pathlib import Path

from PIL import Image, ImageDraw

from harald.config import tiny
from harald.data.manifest import split_of
from harald.runtime import Runtime

HAIR = {"red": "firebrick", "black": "black", "blonde": "gold", "blue": "royalblue"}
SCENES = {"park": "seagreen", "city": "grey", "beach": "khaki", "forest": "darkgreen"}


def write_state(base: Path, seed: int, views: int = 3, side: int = 64) -> Path:
    """One seed_<number> folder: `views` photos and as many comics of one person."""
    draw = random.Random(seed)
    hair, folder = draw.choice(sorted(HAIR)), base / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for domain in ("photo", "comic"):
        for number, (scene, colour) in enumerate(draw.sample(sorted(SCENES.items()), views), 1):
            picture = Image.new("RGB", (side, side), colour)
            pen, x = ImageDraw.Draw(picture), draw.randint(-4, 4)
            pen.ellipse((16 + x, 8, 48 + x, 44), fill=HAIR[hair])
            pen.ellipse((20 + x, 16, 44 + x, 48), fill="peachpuff", outline="black" if domain == "comic" else None)
            mood = draw.choice(("laughing", "angry", "sad"))
            picture.save(folder / f"{domain}_view_{number:02d}.png")
            text = f"{domain} of a woman with {hair} hair, {mood}, in a {scene}"
            (folder / f"{domain}_view_{number:02d}.txt").write_text(text)
    return folder


def write_dataset(root: Path, states: int = 6, views: int = 3, held_out: int = 0) -> Runtime:
    """root/dataset/1 with `states` states, at least two of them in the validation split of the tiny preset, and so many
    more that are held out.
    """
    counts = {"validation": 2, "train": max(0, states - 2), "held_out": held_out}
    splits = {seed: split_of(f"seed_{seed}", tiny().data) for seed in range(1, 200)}
    for seed in (s for split, count in counts.items() for s in [s for s in splits if splits[s] == split][:count]):
        write_state(root / "dataset" / "1", seed, views)
    return Runtime.local(root)

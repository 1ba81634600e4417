import dataclasses

import numpy as np
import pytest
import torch

from harald import config
from harald.evaluation import drawing
from harald.evaluation.drawing import Request, draw_all
from harald.generation.draw import draw
from harald.injection.prompt import ANY, Prompt, parse
from tests.models import base

TINY = config.tiny()
CONFIG = dataclasses.replace(TINY, generate=dataclasses.replace(TINY.generate, steps=2))
TOKENS = torch.randn(16, base().width, generator=torch.Generator().manual_seed(0))
TABLE = {"anna": TOKENS, "bert": TOKENS.flip(0)}
SILENT = "photo of <person>, laughing, in a park"


def request(text: str = SILENT, tokens: str = "", seed: int = 0, point: config.Point = "output") -> Request:
    return Request("photo", point, text, tokens, seed)


def far(one, other) -> int:
    """Largest difference of two pictures, of 255."""
    return int(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).max())


def test_batch_of_unequal_prompts_is_what_each_gives_alone_by_rounding():
    long = "photo of a young woman with long red hair and round glasses, laughing, in a park at night"
    asked = [request(tokens="anna"), request(), request(long, seed=3), request(tokens="anna", point="input")]
    drawn = draw_all(base(), asked, TABLE, CONFIG)
    alone = [
        draw(base(), parse(SILENT), {ANY: TOKENS}, [0], CONFIG, "photo", "output"),
        draw(base(), parse(SILENT), {}, [0], CONFIG, "photo"),
        draw(base(), Prompt((long,), ()), {}, [3], CONFIG, "photo"),
        draw(base(), parse(SILENT), {ANY: TOKENS}, [0], CONFIG, "photo", "input"),
    ]
    for one, (other,) in zip(asked, alone, strict=True):
        assert far(drawn[one], other) <= 1
    pictures = [drawn[one] for one in asked]
    assert all(far(a, b) > 1 for n, a in enumerate(pictures) for b in pictures[n + 1 :])


def test_picture_that_is_asked_for_twice_is_drawn_once_and_order_changes_nothing():
    asked = [request(tokens="bert"), request(tokens="anna"), request(seed=1)]
    drawn = draw_all(base(), [*asked, request(tokens="anna")], TABLE, CONFIG)
    assert len(drawn) == 3
    again = draw_all(base(), asked[::-1], TABLE, CONFIG)
    assert all(again[one].tobytes() == drawn[one].tobytes() for one in asked)


def test_broken_off_call_goes_on_and_ends_with_the_bytes_of_an_unbroken_one(tmp_path, monkeypatch):
    pairs = dataclasses.replace(CONFIG, evaluate=dataclasses.replace(CONFIG.evaluate, batch=2))
    asked = [request(tokens=name, seed=seed) for name in ("anna", "bert") for seed in (0, 1, 2)]
    whole = draw_all(base(), asked, TABLE, pairs)

    def breaks_off(done: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_all(base(), asked, TABLE, pairs, breaks_off, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    files[0].unlink()  # killed within a batch: its other picture is there
    assert draw_all(base(), asked, TABLE, pairs, folder=tmp_path) == whole
    monkeypatch.delattr(drawing, "_draw")
    assert draw_all(base(), asked, TABLE, pairs, folder=tmp_path) == whole, "nothing is left to draw"


def test_kept_picture_of_other_tokens_is_not_taken(tmp_path):
    for table in (TABLE, {"anna": TOKENS + 1}):
        drawn = draw_all(base(), [request(tokens="anna")], table, CONFIG, folder=tmp_path)
        assert drawn == draw_all(base(), [request(tokens="anna")], table, CONFIG)
    assert len(list(tmp_path.iterdir())) == 2

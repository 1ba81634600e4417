import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance

from harald.evaluation.copy_paste import nearest
from harald.evaluation.identity import centres, look_alike_test
from harald.evaluation.panel import Truth
from harald.evaluation.seen import Seen
from tests.evaluation.readings import truth
from tests.evaluation.test_panel import SETTINGS, cells, panel, state


def faces(*rows: tuple[float, float]) -> Seen:
    return Seen({}, torch.zeros(len(rows), 0, dtype=torch.long), torch.tensor(rows))


def test_right_person_wins_the_look_alike_loses_and_twins_take_no_part():
    known = truth([[0, 0, 0]] * 3, relations=("look-alike", "look-alike", "twin"))
    around = (torch.tensor([[1.0, 0.0]] * 3).double(), torch.tensor([[0.0, 1.0]] * 3).double())
    assert look_alike_test(faces((1, 0), (1, 0), (0, 1)), around, known).value == 1.0
    assert look_alike_test(faces((0, 1), (0, 1), (1, 0)), around, known).value == 0.0
    mixed = look_alike_test(faces((1, 0), (0, 1), (1, 0)), around, known)
    assert (mixed.value, mixed.count) == (0.5, 2)


def test_centres_leave_out_the_target_and_the_references():
    p = panel(state(1, 5, 5), state(2, 5, 5))
    chosen = [cell for cell in cells(p, SETTINGS, 0) if cell.state == 0][:1]
    used = {chosen[0].target, *chosen[0].references}
    own = [(0.0, 1.0) if place in used else (1.0, 0.0) for place in range(10)]
    around = centres(p, chosen, faces(*own, *[(-1.0, 0.0)] * 10))
    assert around is not None
    assert around[0].tolist() == [[1.0, 0.0]] and around[1].tolist() == [[-1.0, 0.0]]
    assert centres(p, chosen, Seen({}, torch.zeros(20, 0), None)) is None
    assert len(Truth.of(p, chosen)) == 1


def head(x: int, colour: str = "peachpuff") -> Image.Image:
    picture = Image.new("RGB", (64, 64), "seagreen")
    ImageDraw.Draw(picture).ellipse((x, 16, x + 28, 52), fill=colour, outline="black")
    return picture


def test_copied_layout_is_nearer_than_the_same_head_elsewhere():
    reference = head(6)
    brighter = ImageEnhance.Brightness(reference).enhance(1.2)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert nearest(reference, [head(30), reference]) > 0.999
    assert nearest(brighter, [reference]) > 0.9 > nearest(head(30), [reference]) > nearest(noise, [reference])

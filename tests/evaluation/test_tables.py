"""From the judge's words to the bars, on a hand-made panel: perfect pictures meet them, swapped twins meet none."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from harald import config
from harald.evaluation.arms import IDENTITY, NOTHING, OURS, Asking
from harald.evaluation.evidence import Compared, Evidence, Judged, judged, real_targets
from harald.evaluation.override import Override
from harald.evaluation.panel import HIDDEN, Panel, Truth, cells, hiding_cells
from harald.evaluation.result import Result
from harald.evaluation.seen import Seeing, Seen
from harald.evaluation.state_bars import BLIND, GAPS, MORE, measured
from harald.evaluation.tables import BESIDE, GAINED, OVERRIDE, SHARE, TWIN, beside_score
from tests.evaluation.readings import ATTRIBUTES, coin, reading
from tests.evaluation.test_panel import SETTINGS, state

CONFIG = replace(config.tiny(), evaluate=replace(SETTINGS, references=(1, 4), main_references=4))


def world(persons: int = 12) -> Panel:
    """Twins whose looks differ; every view has a scene of its own; every second view hides the glasses, some of the
    others the hair.
    """
    states = tuple(state(number, 5, 5) for number in range(2 * persons))
    labels = []
    for number in range(len(states)):
        rows = torch.tensor([[number % 3, (number // 2 + number) % 3, view % 2] for view in range(10)])
        even = (torch.arange(10) + number) % 2 == 0
        rows[even, 1] = HIDDEN
        rows[~even & (torch.arange(10) % 3 == 0), 0] = HIDDEN
        labels.append(rows)
    count = len(states)
    people, rivals = tuple(n // 2 for n in range(count)), tuple(n ^ 1 for n in range(count))
    return Panel(ATTRIBUTES, states, tuple(labels), people, rivals, ("twin",) * count)


def evidence(said: torch.Tensor, one: torch.Tensor | None = None, missed: tuple[str, ...] = ()) -> Evidence:
    """What ours shows in the main cells, and with one reference; the other arms say anything. missed: what a reference
    that hides it does not tell.
    """
    panel = world()
    chosen = cells(panel, CONFIG.evaluate, 0)
    truth, rows = Truth.of(panel, chosen), tuple(range(len(chosen)))
    views = reading(torch.cat(panel.labels).clamp(min=0))
    ours, chance = Judged(rows, reading(said)), Judged(rows, coin(truth))
    one = ours.seen if one is None else reading(one)
    return Evidence(
        panel, tuple(chosen), truth, views, real_targets(panel, chosen, views),
        {OURS: ours, NOTHING: chance, IDENTITY: chance}, {1: Judged(rows, one), 4: ours}, (None,) * len(chosen), {},
        {OURS: torch.zeros(len(chosen), dtype=torch.float64)},
        hiding={name: compared(panel, name, name in missed) for name in ATTRIBUTES if name != "scene"},
    )  # fmt: skip


def compared(panel: Panel, name: str, is_missed: bool) -> Compared:
    known = Truth.of(panel, hiding_cells(panel, name, 4, 0))
    right = known.labels.clamp(min=0)
    wrong, column = right.clone(), list(ATTRIBUTES).index(name)
    wrong[:, column] = (right[:, column] + is_missed) % 3
    return Compared(known, reading(right), reading(wrong))


def truths() -> Truth:
    panel = world()
    return Truth.of(panel, cells(panel, CONFIG.evaluate, 0))


def values(found: Evidence) -> tuple[Result, dict[str, float]]:
    result = Result.of(found, {}, {}, 0)
    return result, {name: score.value for name, score in measured(found, result, None, 0).items()}


def test_perfect_pictures_reach_the_ceiling_and_real_views_are_the_targets():
    result, bars = values(evidence(truths().labels.clamp(min=0)))
    assert result.arms["real views"][SHARE].value == result.arms["real views"][TWIN].value == 1.0
    assert bars["twin test"] == 1.0 and bars[BLIND] == pytest.approx(0.5, abs=0.15)
    assert bars["state kept: glasses"] == bars["state kept: hair"] == 1.0
    assert bars["invented"] == 0.0 and bars[MORE] == 0.0 and [bars[name] for name in GAPS] == [0.0, 0.0]
    assert result.arms[NOTHING]["invented"].value > 0.3
    assert {row[TWIN].count for row in result.pairs.values()} == {24} and len(result.pairs) == 4
    assert result.unreadable == (0.0, 0.0)


def test_swapped_twins_lose_every_cell():
    _, bars = values(evidence(truths().rivals.clamp(min=0)))
    assert bars["twin test"] == 0.0 and bars["state kept: hair"] == 0.0


def test_four_references_gain_where_the_one_was_blind():
    said = truths().labels.clamp(min=0)
    one = (said + 1) % 2
    result, bars = values(evidence(said, one, ("glasses",)))
    assert {name: row[GAINED].value for name, row in result.hidden.items()} == {"hair": 0.0, "glasses": 1.0}
    assert bars[MORE] == 0.0, "the attribute that gains least counts"
    assert values(evidence(said, one, ("hair", "glasses")))[1][MORE] == 1.0
    assert result.counts[4][SHARE].value == 1.0 > result.counts[1][SHARE].value


def test_group_that_carries_an_attribute_takes_it_along():
    """Without "worn" every glasses are the wrong ones; without "hair" nothing changes."""
    known = truths()
    right = known.labels.clamp(min=0)
    bare = right.clone()
    bare[:, 1] = (bare[:, 1] + 1) % 3
    found, rows = evidence(right), tuple(range(len(known)))
    dropped = {"worn": Judged(rows, reading(bare)), "hair": Judged(rows, reading(right))}
    table = Result.of(replace(found, dropped=dropped), {}, {}, 0).groups
    glasses, hair = table["glasses"], table["hair"]
    assert [glasses[column].value for column in (OURS, "without worn", "without hair")] == [1.0, 0.0, 1.0]
    assert hair["without worn"].value == 1.0 > hair[NOTHING].value
    assert Result.of(found, {}, {}, 0).groups == {}, "an encoder of one group has none to drop"


def test_what_a_wish_does_not_speak_of_is_judged_beside_it():
    """Round glasses are asked of everybody: they are drawn, and take the hair of every second cell along."""
    known, rows = truths(), tuple(range(len(truths())))
    drawn = known.labels.clamp(min=0).clone()
    drawn[:, 1] = 1
    drawn[::2, 0] = (drawn[::2, 0] + 1) % 3
    wishes = (Override("glasses", 1, "with round glasses", "<person> with round glasses"),) * len(known)
    found = replace(evidence(known.labels.clamp(min=0)), wishes=wishes, overridden={OURS: Judged(rows, reading(drawn))})
    row = Result.of(found, {}, {}, 0).arms[OURS]
    seen = known.labels[:, 0] >= 0
    assert row[OVERRIDE].value == 1.0
    hat = replace(wishes[0], attribute="headwear", said="wearing a red hat")
    assert beside_score(replace(found, wishes=(hat,) * len(known)), OURS, 0).value == pytest.approx(
        (known.labels[:, 1] == 1).sum().item() / (known.labels[:, 1] >= 0).sum().item()
    ), "hair under a hat is spoken of, glasses are not"
    assert row[BESIDE].value == pytest.approx((seen[1::2].sum() / seen.sum()).item()) and 0.2 < row[BESIDE].value < 0.8


class Colours(Seeing):
    """Says the class of everything by the red of the picture."""

    attributes = ATTRIBUTES

    def see(self, pictures):
        return Seen({}, torch.tensor([[picture.getpixel((0, 0))[0]] * 3 for picture in pictures]), None)


def test_every_arm_is_given_what_the_judge_says_about_its_own_pictures():
    panel = world(2)
    chosen = cells(panel, CONFIG.evaluate, 0)
    asking = Asking(panel, chosen, CONFIG)
    names = [f"tokens {row}" for row in range(len(chosen))]
    asked = {OURS: asking.silent(range(len(chosen)), names, "output")}
    asked["some"] = asking.silent([3, 1], [names[3], names[1]], "output")
    asked[NOTHING] = asking.silent(range(len(chosen)), [""] * len(chosen), "output")
    unique = sorted({request for one in asked.values() for request in one.requests})
    pictures = {request: Image.new("RGB", (4, 4), (n, 0, 0)) for n, request in enumerate(unique)}
    seen = judged(asked, pictures, Colours())
    assert seen["some"].seen.said[:, 0].tolist() == seen[OURS].only([3, 1]).seen.said[:, 0].tolist()
    assert [unique[n] for n in seen[OURS].seen.said[:, 0].tolist()] == list(asked[OURS].requests)
    assert len(unique) == len(chosen) + 8  # without tokens a target is one picture, whatever its references are
    same_noise = zip(asked[OURS].requests, asked[NOTHING].requests, strict=True)
    assert all(one.seed == other.seed and one.text == other.text for one, other in same_noise)

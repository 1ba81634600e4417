"""The tables of the report: every value with its interval over persons."""

from collections.abc import Sequence

import torch

from harald.evaluation.accuracy import Score
from harald.evaluation.arms import NOTHING, OURS, REAL, without
from harald.evaluation.evidence import Evidence, Judged
from harald.evaluation.identity import centres, look_alike_test
from harald.evaluation.keep import (
    attribute_keep,
    attribute_share,
    invented,
    right_gain,
    rights,
    state_keep,
    state_share,
)
from harald.evaluation.override import override_rate
from harald.evaluation.paired import mean
from harald.evaluation.panel import NONE, UNREADABLE, VIEW_ATTRIBUTES, Truth
from harald.evaluation.seen import Seen
from harald.evaluation.twin import twin_test

Row = dict[str, Score]
TWIN, KEPT, SHARE, INVENTED, ALIKE = "twin test", "state kept", "share of the ceiling", "invented", "look-alike test"
COPIED, OVERRIDE, GAINED = "nearer to a reference", "override", "gain"
BESIDE = "right beside a wish"
HAIR = {"hair", "hair_colour"}
ALONE = "the one that hides it"


def state_names(truth: Truth) -> list[str]:
    return [name for name in truth.attributes if name not in VIEW_ATTRIBUTES]


def view_names(truth: Truth) -> list[str]:
    return [name for name in truth.attributes if name in VIEW_ATTRIBUTES]


def arm_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """Arm -> its scores. An arm that leaves cells out is measured on its own."""
    around = centres(evidence.panel, list(evidence.cells), evidence.views)
    table = {}
    for name, arm in {**evidence.arms, REAL: evidence.real}.items():
        truth = evidence.truth.pick(arm.rows)
        row = state_row(evidence, arm, seed)
        if around is not None:
            sides = (around[0][list(arm.rows)], around[1][list(arm.rows)])
            row[ALIKE] = look_alike_test(arm.seen, sides, truth, seed)
        if name in evidence.overridden:
            row[OVERRIDE] = override_score(evidence, name, seed)
            row[BESIDE] = beside_score(evidence, name, seed)
        if name in evidence.copies:
            row[COPIED] = mean(evidence.copies[name], truth.people, seed)
        row |= {view: attribute_keep(arm.seen, truth, view, seed) for view in view_names(truth)}
        table[name] = row
    return table


def state_row(evidence: Evidence, arm: Judged, seed: int) -> Row:
    """What an arm keeps of the state, on its cells."""
    truth, ceiling = evidence.truth.pick(arm.rows), evidence.real.only(arm.rows).seen
    return {
        TWIN: twin_test(arm.seen, truth, seed),
        KEPT: state_keep(arm.seen, truth, seed),
        SHARE: state_share(arm.seen, ceiling, truth, seed),
        INVENTED: invented(arm.seen, truth, state_names(truth), seed),
    }


def attribute_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """Attribute of the state -> kept by ours, without tokens, on real views; the share; invented by ours, without."""
    ours, nothing = evidence.arms[OURS], evidence.arms[NOTHING]
    truth, table = evidence.truth, {}
    for name in state_names(truth):
        table[name] = {
            OURS: attribute_keep(ours.seen, truth, name, seed),
            NOTHING: attribute_keep(nothing.seen, truth, name, seed),
            REAL: attribute_keep(evidence.real.seen, truth, name, seed),
            SHARE: attribute_share(ours.seen, evidence.real.seen, truth, name, seed),
        }
        if NONE in truth.attributes[name]:
            table[name] |= {
                "invented": invented(ours.seen, truth, [name], seed),
                "invented without tokens": invented(nothing.seen, truth, [name], seed),
            }
    return table


def group_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """Attribute of the state -> kept by ours, without each group of its tokens, and without tokens. Where a group alone
    carries an attribute, nothing of it is left without that group, and nothing is missing without another.
    """
    named = {without(group): arm.seen for group, arm in evidence.dropped.items()}
    columns = {OURS: evidence.arms[OURS].seen, **named, NOTHING: evidence.arms[NOTHING].seen}
    return {
        name: {column: attribute_keep(seen, evidence.truth, name, seed) for column, seen in columns.items()}
        for name in (state_names(evidence.truth) if named else [])
    }


def following_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """Attribute of the view -> followed by ours, by the base model without a person, and the share of that."""
    ours, nothing, truth, table = evidence.arms[OURS].seen, evidence.arms[NOTHING].seen, evidence.truth, {}
    for name in view_names(truth):
        table[name] = {
            OURS: attribute_keep(ours, truth, name, seed),
            NOTHING: attribute_keep(nothing, truth, name, seed),
            "share": attribute_share(ours, nothing, truth, name, seed),
        }
    return table


def pair_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """'photo -> comic' -> what ours keeps from references of the one in pictures of the other."""
    pairs, table = evidence.truth.pairs, {}
    for pair in sorted(set(pairs)):
        rows = [row for row, other in enumerate(pairs) if other == pair]
        table[f"{pair[0]} → {pair[1]}"] = state_row(evidence, evidence.arms[OURS].only(rows), seed)
    return table


def count_table(evidence: Evidence, seed: int) -> dict[int, Row]:
    """Number of references -> what ours keeps. Only the cells that have the largest number: all rows are comparable."""
    most = max(evidence.counts)
    rows = list(evidence.counts[most].rows)
    return {count: state_row(evidence, arm.only(rows), seed) for count, arm in sorted(evidence.counts.items())}


def override_score(evidence: Evidence, arm: str, seed: int) -> Score:
    done = evidence.overridden[arm]
    wishes = [wish for row in done.rows if (wish := evidence.wishes[row])]
    return override_rate(done.seen, wishes, evidence.truth.pick(done.rows), seed)


def beside_score(evidence: Evidence, arm: str, seed: int) -> Score:
    """How often the judge is right about what a wish does not speak of. What it hides counts as spoken of: hair under a
    hat, ears and neck under a headscarf.
    """
    done = evidence.overridden[arm]
    truth, names = evidence.truth.pick(done.rows), state_names(evidence.truth)
    right = rights(done.seen, truth)
    for row, wish in zip(right, (evidence.wishes[row] for row in done.rows), strict=True):
        assert wish, "drawn for it"
        spoken = {wish.attribute} | (HAIR if wish.attribute in HAIR | {"headwear"} else set())
        spoken |= {"earrings", "necklace"} if "headscarf" in wish.said else set()
        row[[place for place, name in enumerate(names) if name in spoken]] = torch.nan
    return mean(right.nanmean(1), truth.people, seed)


def hidden_table(evidence: Evidence, seed: int) -> dict[str, Row]:
    """Attribute of the state -> how often the main number of references is right about it, how often the one of them
    alone that hides it, and the difference. Attributes that no reference hides are left out.
    """
    table = {}
    for name, found in evidence.hiding.items():
        truth, column = found.truth, state_names(found.truth).index(name)
        table[name] = {
            OURS: mean(rights(found.many, truth)[:, column], truth.people, seed),
            ALONE: mean(rights(found.one, truth)[:, column], truth.people, seed),
            GAINED: right_gain(found.many, found.one, truth, name, seed),
        }
    return table


def unreadable(parts: Sequence[Seen]) -> float:
    """Share of the judge's answers about these pictures that name no class."""
    said = torch.cat([seen.said.flatten() for seen in parts])
    return (said == UNREADABLE).double().mean().item()

"""Which views are references and which are targets: pure functions of (seed, step, slot), whatever worker asks."""

import functools
import random
from collections import Counter

from harald.config import Train
from harald.data.people import split_key
from harald.determinism import rng
from harald.errors import DatasetError
from harald.records import Pair, State, View


def draw_domain(seed: int, step: int, states: list[State]) -> str:
    """The batch's one domain (one style LoRA, one image bucket), in proportion to the states that can serve it.

    Raises DatasetError if no state has two views.
    """
    able = Counter(domain for state in states if len(state.views) > 1 for domain in state.domains)
    if not able:
        raise DatasetError(f"none of {len(states)} states has two views", "one to look at, one to draw: add views")
    domains = sorted(able)
    return rng(seed, "domain", step).choices(domains, [able[domain] for domain in domains])[0]


def draw_states(seed: int, step: int, n: int, candidates: list[State], twins_together: bool = False) -> list[State]:
    """n states of shuffled epochs: within ceil(len / n) steps every state comes once, no state twice in a batch.

    twins_together: it is the persons that are shuffled, the states of one follow each other.

    Where n does not divide the number of states, the last batch of an epoch is filled up from the epoch's beginning.
    Only where there are fewer than n states does a batch repeat some. Raises DatasetError without candidates.
    """
    if not candidates:
        raise DatasetError("there is no state to draw from", "run check_dataset and repair what it reports")
    size = len(candidates)
    epoch, batch = divmod(step, -(-size // n))
    people = tuple(split_key(state) for state in candidates) if twins_together else tuple(map(str, range(size)))
    order = _order(seed, epoch, people)
    return [candidates[order[(batch * n + slot) % size]] for slot in range(n)]


@functools.lru_cache(maxsize=16)
def _order(seed: int, epoch: int, people: tuple[str, ...]) -> tuple[int, ...]:
    """Places in shuffled order, those of one person together."""
    places: dict[str, list[int]] = {}
    for place, person in enumerate(people):
        places.setdefault(person, []).append(place)
    groups = list(places.values())
    rng(seed, "epoch", epoch, len(people)).shuffle(groups)
    return tuple(place for group in groups for place in group)


def draw_pair(
    seed: int, step: int, slot: int, state: State, train: Train, domain: str, drawn: State | None = None
) -> Pair:
    """References and targets of one state; every target is of `domain`. drawn: another state that the targets show.

    The number of references is drawn first, from 1 to max_references, so that the encoder meets them equally often. It
    is the step's: states with as many pictures go through the encoder together.
    Targets take what is left, up to targets_per_state: a state of few views gets fewer targets, never fewer than one.
    Raises DatasetError if the state has no view of the domain, or only one view.
    """
    own, others = list(state.in_domain(domain)), [view for view in state.views if view.domain != domain]
    if not drawn and (not own or len(state.views) < 2):
        raise DatasetError(
            f"state {state.state_id} has {len(own)} {domain} views and {len(state.views)} in all",
            "it needs one to draw and another one to look at",
        )
    choices = rng(seed, "pairs", step, slot, state.state_id)
    crosses = choices.random() < train.cross_domain_share
    wanted = rng(seed, "references", step).randint(1, train.max_references)
    choices.shuffle(own)
    if drawn:
        shown = list(drawn.in_domain(domain))
        choices.shuffle(shown)
        targets, pool = shown[: train.targets_per_state], _one_domain(choices, others) if others and crosses else own
        pool = pool or others
    elif others and (crosses or len(own) == 1):
        targets, pool = own[: train.targets_per_state], _one_domain(choices, others)
    else:
        count = min(train.targets_per_state, max(1, len(own) - wanted))
        targets, pool = own[:count], own[count:]
    return Pair(state, tuple(choices.sample(pool, min(wanted, len(pool)))), tuple(targets), drawn or state)


def _one_domain(choices: random.Random, views: list[View]) -> list[View]:
    domain = choices.choice(sorted({view.domain for view in views}))
    return [view for view in views if view.domain == domain]

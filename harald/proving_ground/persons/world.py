"""States by number: persons, what they wear, their views, their pictures with the truth, their prompts."""

from dataclasses import dataclass

import numpy as np

from harald.data.description import listed
from harald.determinism import rng
from harald.proving_ground.persons.figure import build_figure, grown
from harald.proving_ground.persons.identity import Identity, draw_identity
from harald.proving_ground.persons.look import Look, article, draw_look
from harald.proving_ground.persons.picture import Picture, draw
from harald.proving_ground.persons.truth import labels
from harald.proving_ground.persons.view import DOMAINS, View, draw_view

SIDE = 128


@dataclass(frozen=True)
class Rendered:
    """The pictures of one state. V views, half of them photos, half comics, S pixels a side, A attributes.

    images: uint8 [V, S, S, 3]. detail: uint8 [V, S, S], how much of a pixel glasses, jewellery and
    eyes cover (255: all), and half as much for the mouth.
    labels: int8 [V, A] in the order of ATTRIBUTES, -1 where the part cannot be seen. identity: number of the person.
    prompts: for each view the full text and the state-free text.
    """

    images: np.ndarray
    detail: np.ndarray
    labels: np.ndarray
    identity: int
    prompts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Person:
    """One state: somebody as they look at one time. Twins share identity_number, look-alikes look_number."""

    identity_number: int
    look_number: int
    identity: Identity
    look: Look
    views: tuple[View, ...]

    def description(self) -> str:
        """'a young woman with ..., wearing a ...'."""
        said = [*self.look.phrases(), *self.identity.phrases()]
        return f"{article(self.identity.noun)} with {listed(said)}, {self.look.worn()}"

    def prompt(self, view: View) -> str:
        return ", ".join([f"{view.domain} of {self.description()}", *view.words()])

    def state_free_prompt(self, view: View) -> str:
        """What is left when the description is taken out and <person> stands for its class word."""
        return ", ".join([f"{view.domain} of person", *view.words()])


def person(seed: int, index: int, *, held_out: bool = False, views: int = 8, look_alikes: bool = False) -> Person:
    """State `index` of a seed. States 2k and 2k + 1 are twins: one identity, two looks; with look_alikes one look, two
    identities of the same sex. Held-out persons come from streams of their own: no index reaches them by chance.
    """
    identity_number, look_number = (index, index // 2) if look_alikes else (index // 2, index)
    stream = "held-out" if held_out else "held-in"
    identity = draw_identity(rng(seed, stream, "identity", identity_number))
    if look_alikes:
        first = draw_identity(rng(seed, stream, "identity", look_number * 2))
        identity = _same_sex(seed, stream, identity_number, identity, first.male)
    look = draw_look(rng(seed, stream, "look", look_number), identity.male)
    if not look_alikes and index % 2:
        twin = draw_look(rng(seed, stream, "look", index - 1), identity.male)
        look = _unlike(seed, stream, look_number, look, twin, identity.male)
    choices = rng(seed, stream, "views", index)
    per_domain = -(-views // len(DOMAINS))
    drawn = tuple(draw_view(choices, DOMAINS[n // per_domain], n % per_domain + 1) for n in range(views))
    return Person(identity_number, look_number, identity, look, drawn)


def _same_sex(seed: int, stream: str, number: int, identity: Identity, male: bool) -> Identity:
    attempt = 0
    while identity.male != male:
        attempt += 1
        identity = draw_identity(rng(seed, stream, "identity", number, attempt))
    return identity


def _unlike(seed: int, stream: str, number: int, look: Look, twin: Look, male: bool) -> Look:
    """Twins differ visibly: in hair and in at least one thing worn."""
    attempt = 0
    while look.hair == twin.hair or (look.glasses, look.headwear) == (twin.glasses, twin.headwear):
        attempt += 1
        look = draw_look(rng(seed, stream, "look", number, attempt), male)
    return look


def pictures(someone: Person, side: int = SIDE) -> list[Picture]:
    """One picture for each view. The figure is built once for each domain."""
    solids, domains = grown(someone.look), {view.domain for view in someone.views}
    figures = {d: build_figure(someone.identity, someone.look, d == "comic", solids) for d in domains}
    return [draw(someone.identity, someone.look, figures[v.domain], v, side) for v in someone.views]


def rendered(seed: int, index: int, *, held_out: bool = False, views: int = 8, side: int = SIDE) -> Rendered:
    """State `index` of a seed as arrays: a pure function, safe to call in any process."""
    someone = person(seed, index, held_out=held_out, views=views)
    drawn = pictures(someone, side)
    return Rendered(
        images=np.stack([picture.image for picture in drawn]),
        detail=np.stack([picture.detail for picture in drawn]),
        labels=np.stack([labels(someone.look, v, p.pixels) for v, p in zip(someone.views, drawn, strict=True)]),
        identity=someone.identity_number,
        prompts=tuple((someone.prompt(view), someone.state_free_prompt(view)) for view in someone.views),
    )


def state_id(seed: int, index: int) -> str:
    """Unique over the states of a seed: a multiplication that is one to one, then a shift."""
    shift = rng(seed, "state_id").randrange(90_000_000)
    return f"seed_{10_000_000 + (index * 7_654_321 + shift) % 90_000_000}"

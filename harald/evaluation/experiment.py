"""Which pictures the panel needs: the tokens of every arm, and the requests that are drawn with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from harald.config import Config, Point
from harald.encoder.model import PersonEncoder
from harald.evaluation.arms import (
    IDENTITY,
    INVERSION,
    MEAN,
    NOTHING,
    OTHER,
    OURS,
    REFINED,
    WORDS,
    Asked,
    Asking,
    Hiding,
    others,
    override_of,
    predicted,
    references_name,
    without,
)
from harald.evaluation.drawing import Request
from harald.evaluation.override import Override, override
from harald.evaluation.panel import VIEW_ATTRIBUTES, Cell, Panel, hiding_cells, references
from harald.generation.persons import for_prompt, without_groups
from harald.injection.prompt import ANY, parse
from harald.records import PersonTokens, View


@dataclass
class Experiment:
    """table: name -> tokens [K, d]. asked: arm -> its pictures; counts: ours by the number of references; dropped: ours
    without a group of tokens, by its name; hiding: attribute -> pictures of the states of `hidden`, a panel of its own,
    where one reference hides it; overridden: arm -> pictures of its wishes. notes: arm that was left out -> why.
    """

    panel: Panel
    cells: Sequence[Cell]
    hidden: Panel
    config: Config
    table: dict[str, Tensor] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    counts: dict[int, Asked] = field(default_factory=dict)
    dropped: dict[str, Asked] = field(default_factory=dict)
    hiding: dict[str, Hiding] = field(default_factory=dict)
    overridden: dict[str, Asked] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.asking = Asking(self.panel, self.cells, self.config)
        self.rows = range(len(self.cells))
        self.main = self.config.evaluate.main_references
        self.point: Point = self.config.injection.point
        self.wishes: tuple[Override | None, ...] = tuple(
            override(self.panel, cell, self.config.seed) for cell in self.cells
        )

    def without_tokens(self) -> None:
        """The base model alone, and with the person in words."""
        nobody = [""] * len(self.cells)
        self.asked[NOTHING] = self.asking.silent(self.rows, nobody, self.point)
        self.overridden[NOTHING] = self.asking.overridden(self.wishes, nobody, self.point)
        described = self.asking.described()
        if described.rows:
            self.asked[WORDS] = described
        else:
            self.notes[WORDS] = "the prompts hold <person> and no words for the person"

    def ours(self, encoder: PersonEncoder, training: Sequence[Sequence[View]]) -> None:
        """Tokens of the encoder: by number of references, without each group, of another person, and their mean over
        training states.
        """
        names = self._predict(encoder, OURS, self.main, self.rows)
        self.asked[OURS] = self.asking.silent(self.rows, names, self.point)
        self.overridden[OURS] = self.asking.overridden(self.wishes, self._making_room(names), self.point)
        for count in self.config.evaluate.references:
            rows = [row for row in self.rows if len(self.cells[row].references) >= count]
            if rows:
                counted = self._predict(encoder, OURS, count, rows)
                self.counts[count] = self.asking.silent(rows, counted, self.point)
        for attribute in self.hidden.attributes:
            if attribute not in VIEW_ATTRIBUTES:
                self._hiding(encoder, attribute)
        groups = encoder.config.names if self.config.evaluate.groups else ()
        for group in groups if len(groups) > 1 else ():
            self.dropped[group] = self.asking.silent(self.rows, self._without(group, names), self.point)
        self.asked[OTHER] = self.asking.silent(self.rows, self._of_others(names), self.point)
        mean = torch.stack(predicted(encoder, training, self.config.evaluate.batch)).mean(0)
        self.table[MEAN] = mean
        self.asked[MEAN] = self.asking.silent(self.rows, [MEAN] * len(self.cells), self.point)

    def identity_only(self, encoder: PersonEncoder | None) -> None:
        if encoder is None:
            self.notes[IDENTITY] = "no --identity-run was given"
            return
        names = self._predict(encoder, IDENTITY, self.main, self.rows)
        self.asked[IDENTITY] = self.asking.silent(self.rows, names, encoder.point)

    def refined(self, refine: Callable[[Mapping[str, Sequence[View]]], Mapping[str, Tensor]]) -> None:
        """refine: name of ours -> the references that its tokens were predicted from, and what becomes of these."""
        if not self.config.refine.steps:
            self.notes[REFINED] = "refine.steps is 0"
            return
        names = [f"{OURS}/{references_name(self.panel, cell, self.main)}" for cell in self.cells]
        seen = {name: references(self.panel, cell, self.main) for name, cell in zip(names, self.cells, strict=True)}
        self.table |= {f"{name}, refined": tokens for name, tokens in refine(seen).items()}
        names = [f"{name}, refined" for name in names]
        self.asked[REFINED] = self.asking.silent(self.rows, names, self.point)
        self.overridden[REFINED] = self.asking.overridden(self.wishes, self._making_room(names), self.point)

    def inverted(self, tokens: Mapping[int, Tensor]) -> None:
        """tokens: number of a state -> what Textual Inversion found for it."""
        if not tokens:
            self.notes[INVERSION] = "evaluate.inversion_states is 0"
            return
        self.table |= {f"{INVERSION}/{state}": found for state, found in tokens.items()}
        rows = [row for row in self.rows if self.cells[row].state in tokens]
        names = [f"{INVERSION}/{self.cells[row].state}" for row in rows]
        self.asked[INVERSION] = self.asking.silent(rows, names, self.point)

    def everything(self) -> dict[str, Asked]:
        """All pictures, by a name for each set of them."""
        return {
            **self.asked,
            **{f"{count} references": asked for count, asked in self.counts.items()},
            **{without(group): asked for group, asked in self.dropped.items()},
            **{override_of(arm): asked for arm, asked in self.overridden.items()},
        }

    def requests(self) -> list[Request]:
        return [request for asked in self.everything().values() for request in asked.requests]

    def hiding_requests(self) -> list[Request]:
        return [r for found in self.hiding.values() for asked in (found.many, found.one) for r in asked.requests]

    def _predict(self, encoder: PersonEncoder, arm: str, count: int, rows: Sequence[int]) -> list[str]:
        """Names in the table of the tokens of each row's cell, predicted where they are not there yet."""
        return self._tokens(encoder, arm, self.panel, [self.cells[row] for row in rows], count)

    def _hiding(self, encoder: PersonEncoder, attribute: str) -> None:
        cells = hiding_cells(self.hidden, attribute, self.main, self.config.seed)
        if cells:
            asking = Asking(self.hidden, cells, self.config)
            many, one = (
                asking.silent(range(len(cells)), self._tokens(encoder, OURS, self.hidden, cells, count), self.point)
                for count in (self.main, 1)
            )
            self.hiding[attribute] = Hiding(tuple(cells), many, one)

    def _tokens(self, encoder: PersonEncoder, arm: str, panel: Panel, cells: Sequence[Cell], count: int) -> list[str]:
        names = [f"{arm}/{references_name(panel, cell, count)}" for cell in cells]
        views = {name: references(panel, cell, count) for name, cell in zip(names, cells, strict=True)}
        fresh = [name for name in views if name not in self.table]
        made = predicted(encoder, [views[name] for name in fresh], self.config.evaluate.batch)
        self.table |= dict(zip(fresh, made, strict=True))
        return names

    def _without(self, group: str, names: Sequence[str]) -> list[str]:
        """The same with one group dropped, as `generate` drops it."""
        return [self._changed(name, without_groups(self._person(name), [group])) for name in names]

    def _making_room(self, names: Sequence[str]) -> list[str]:
        """For the rows with a wish the tokens that `generate` would take for it."""
        if not self.config.generate.words_win:
            return list(names)
        return [
            self._changed(name, for_prompt(parse(wish.text), {ANY: self._person(name)})[ANY]) if wish else name
            for name, wish in zip(names, self.wishes, strict=True)
        ]

    def _person(self, name: str) -> PersonTokens:
        return PersonTokens(self.table[name], self.config.encoder.groups, self.point, self.config.models.base.repo)

    def _changed(self, name: str, person: PersonTokens) -> str:
        """The name in the table of what is left of some tokens."""
        left = {group for group, _ in person.groups}
        name = ", ".join([name, *(without(group) for group in self.config.encoder.names if group not in left)])
        self.table[name] = person.tokens
        return name

    def _of_others(self, names: Sequence[str]) -> list[str]:
        """For each cell the tokens of another person's cell of the same domains, or of any where there is none."""
        turned = others(self.panel)
        known = {self._place(row, cell.state): names[row] for row, cell in enumerate(self.cells)}
        anything = {cell.state: names[row] for row, cell in enumerate(self.cells)}
        return [
            known.get(self._place(row, turned[cell.state]), anything[turned[cell.state]])
            for row, cell in enumerate(self.cells)
        ]

    def _place(self, row: int, state: int) -> tuple[int, str, str]:
        cell = self.cells[row]
        views = self.panel.states[cell.state].views
        return state, views[cell.references[0]].domain, views[cell.target].domain

"""Every problem of the data set in one run; the manifest of what is usable; a contact sheet to look at."""

import heapq
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harald import reporting, runs, settings
from harald.config import Config
from harald.data.findings import KINDS, Problem
from harald.data.images import load_picture
from harald.data.index import no_usable_state
from harald.data.manifest import rows, write_manifest
from harald.data.problem_file import ProblemFile
from harald.data.scan import scan
from harald.determinism import key
from harald.errors import DatasetError
from harald.records import State, View
from harald.runtime import Runtime

log = logging.getLogger(__name__)

SAMPLE = 24  # states on the contact sheet
VIEWS_SHOWN = 4  # of each of them
LOG_EVERY = 500


def run(runtime: Runtime, config: Config, run_name: str) -> dict:
    """Raises DatasetError if no state is usable, after everything is written."""
    folder = runs.open_run(runtime, "check_dataset", run_name, config)
    sheet = Sample(config.seed)
    with ProblemFile(folder / "problems.json") as problems:
        manifest = folder / "manifest.parquet"
        states, views = write_manifest(manifest, _usable(runtime, config, problems, sheet))
        problems.add(odd_sizes(manifest, sheet.sizes))
        problems.facts = {"states": states, "views": views}
    report = folder / "report.html"
    runs.write_text(report, _report(runtime, config, folder, problems, sheet))
    log.info("%d states, %d views, %d problems: %s", states, views, problems.counts.total(), report)
    if not states:
        runtime.commit()
        first = [problem for some in problems.shown.values() for problem in some][:5]
        raise no_usable_state(runtime, first)
    return {
        "states": states,
        "views": views,
        "problems": problems.summary(),
        "manifest": str(manifest),
        "report": str(report),
    }


class Sample:
    """What the report shows of the states, gathered while they stream by: a few of them, and counts."""

    def __init__(self, seed: int):
        self.seed = seed
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.domains: Counter[str] = Counter()
        self.views_per_state: Counter[int] = Counter()
        self._chosen: list[tuple[int, str, State]] = []

    def add(self, state: State) -> None:
        """The states with the smallest hashes stay, whatever the order; adding states changes few of them."""
        self.sizes.update((view.width, view.height) for view in state.views)
        self.domains.update(view.domain for view in state.views)
        self.views_per_state[len(state.views)] += 1
        entry = (-key(self.seed, "sample", state.state_id), state.state_id, state)
        if len(self._chosen) < SAMPLE:
            heapq.heappush(self._chosen, entry)
        else:
            heapq.heappushpop(self._chosen, entry)

    @property
    def states(self) -> list[State]:
        return [state for _, _, state in sorted(self._chosen, reverse=True)]


def _usable(runtime: Runtime, config: Config, problems: ProblemFile, sheet: Sample) -> Iterator[State]:
    for seen, found in enumerate(scan(runtime.datasets, config.data), 1):
        problems.add(found.problems)
        if seen % LOG_EVERY == 0:
            log.info("%d folders read, %d problems so far", seen, problems.counts.total())
        if found.state:
            sheet.add(found.state)
            yield found.state


def odd_sizes(manifest: Path, sizes: Counter[tuple[int, int]]) -> Iterator[Problem]:
    """A warning for every picture whose size is not the most common one; it stays usable."""
    if len(sizes) < 2:
        return
    common, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
    usual = f"{count} of {sizes.total()} pictures have {common[0]} x {common[1]}"
    for row in rows(manifest, ["base", "state_id", "image", "width", "height"]):
        if (row["width"], row["height"]) != common:
            detail = f"{row['width']} x {row['height']} pixels; {usual}"
            yield Problem("odd_size", row["base"], row["state_id"], Path(row["image"]).name, detail)


def _report(runtime: Runtime, config: Config, folder: Path, problems: ProblemFile, sheet: Sample) -> str:
    groups = [
        {"kind": kind, "about": KINDS[kind], "count": count, "shown": problems.shown[kind]}
        for kind, count in problems.summary().items()
    ]
    return reporting.render(
        "contact_sheet",
        run=folder.name,
        bases={number: str(path) for number, path in sorted(runtime.datasets.items())},
        facts=problems.facts,
        domains=dict(sorted(sheet.domains.items())),
        sizes=[f"{w} x {h} ({n})" for (w, h), n in sheet.sizes.most_common(5)],
        views_per_state=sorted(sheet.views_per_state.items()),
        groups=groups,
        sample=[_card(state) for state in sheet.states],
        config=settings.to_json(config),
    )


def _card(state: State) -> dict[str, Any]:
    """First views of every domain in turn, so that a small selection shows all of them."""
    by_domain = [state.in_domain(domain) for domain in state.domains]
    in_turn = [views[i] for i in range(max(map(len, by_domain))) for views in by_domain if i < len(views)]
    return {"state": state, "views": [(view, *_thumbnail(view)) for view in in_turn[:VIEWS_SHOWN]]}


def _thumbnail(view: View) -> tuple[str, str]:
    """(data URI, what is wrong instead). The ends of a file may be whole and its middle not."""
    try:
        return reporting.embed(load_picture(view.image), 160), ""
    except DatasetError as error:
        return "", str(error).splitlines()[0]

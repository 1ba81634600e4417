"""Write sketched persons in the data set's format: a first data set to try every other job on."""

import io
import logging
from pathlib import Path

from harald import runs
from harald.config import DATASETS, Config
from harald.errors import ConfigError
from harald.proving_ground.sketch_drawing import draw_view
from harald.proving_ground.sketch_persons import SketchState, SketchView, sketch_state
from harald.runtime import Runtime

log = logging.getLogger(__name__)

BASES = (1, 2)
VIEWS = 8
SIDE = 128  # pixels


def run(runtime: Runtime, config: Config, run_name: str, states: int) -> dict:
    """Twins (states 2k and 2k + 1) go to different base folders.

    On this machine the data set's own folders are filled. They are read-only on Modal: there it goes to the output
    volume. Done again with the same flags, or with more states, it completes what is there. Raises ConfigError for a
    base folder with states that it would not write in just this way.
    """
    if not 1 <= states <= 100_000:
        raise ConfigError(f"--states is {states}", "use 1 to 100000")
    folder = runs.open_run(runtime, "demo_dataset", run_name, config, states=states)
    local = runtime.remote_map is None
    root = (runtime.root if local else folder) / "dataset"
    plan = {_home(root, index, state): state for index, state in _sketches(config.seed, states)}
    _refuse_foreign(root, plan)
    written = 0
    for done, (home, state) in enumerate(plan.items(), 1):
        if not _complete(home, state):
            for name, content in files_of(state).items():
                runs.write_bytes(home / name, content)
            written += 1
        if done % 50 == 0:
            log.info("%d of %d states", done, states)
    if not local:
        for base in sorted({home.parent.name for home in plan}):
            volume = DATASETS.get(int(base), "DATASET_VOLUME")
            source = f"/demo_dataset/{folder.name}/dataset/{base}"
            log.info("to use it: modal volume get harald-output %s . && modal volume put %s %s /", source, volume, base)
    return {"states": states, "views": states * VIEWS, "written": written, "dataset": str(root)}


def files_of(state: SketchState) -> dict[str, bytes]:
    """File name -> content, pictures before their prompts."""
    files = {}
    for view in state.views:
        name = _name(view)
        buffer = io.BytesIO()
        draw_view(state, view, SIDE).save(buffer, "PNG")
        files[f"{name}.png"] = buffer.getvalue()
        files[f"{name}.txt"] = f"{state.prompt(view)}\n".encode()
    return files


def _sketches(seed: int, states: int) -> list[tuple[int, SketchState]]:
    return [(index, sketch_state(seed, index, VIEWS)) for index in range(states)]


def _home(root: Path, index: int, state: SketchState) -> Path:
    return root / str(BASES[index % len(BASES)]) / state.state_id


def _complete(home: Path, state: SketchState) -> bool:
    return all((home / f"{_name(view)}{ending}").exists() for view in state.views for ending in (".png", ".txt"))


def _name(view: SketchView) -> str:
    return f"{view.domain}_view_{view.number:02d}"


def _refuse_foreign(root: Path, plan: dict[Path, SketchState]) -> None:
    """Every state that is already there must be one of ours, byte for byte as far as it got."""
    for base in BASES:
        for home in sorted((root / str(base)).glob("seed_*")):
            ours = files_of(plan[home]) if home in plan else {}
            for path in sorted(home.iterdir()) if home.is_dir() else [home]:
                if path.name.startswith(".") and path.suffix == ".tmp":
                    continue  # left by a call that was stopped
                if not path.is_file() or ours.get(path.name) != path.read_bytes():
                    raise ConfigError(
                        f"{root / str(base)} has a state that this call would not write: {path.relative_to(root)}",
                        "nothing was changed; set HARALD_ROOT to an empty folder, or move the data set away",
                    )
            if home not in plan:
                raise ConfigError(
                    f"{home} is not one of the states of this call", "move it away, or use another HARALD_ROOT"
                )

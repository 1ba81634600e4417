"""Kill training runs with SIGKILL, start them again until they are done, and look for what was lost on the way.

    python -m tests.soak --jobs 200 --seed 0 --into docs/results/production.json

Every run is killed once or twice, in turn after a random time and just before a random one of its file operations.
The workers are forked from a server that has imported everything: most of a run is then the run itself.
"""

import hashlib
import json
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from harald import cli, runs
from harald.training.checkpoint import STATE
from tests import results
from tests.processes import CONTEXT
from tests.states import write_dataset

STEPS, VARIANTS = 6, 4  # steps of a run; seeds, each with an undisturbed run to compare with
SMALL = {
    "train.states_per_batch": 1, "train.targets_per_state": 1, "train.sample_every": 6, "train.checkpoint_every": 2,
    "train.keep_checkpoints": 2, "generate.steps": 2, "poc.scenes": ["on a beach"],
}  # fmt: skip
WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}  # audit events of file operations
STARTED, DURABLE = re.compile(r"start at step (\d+) of"), re.compile(r"checkpoint at step (\d+)")
MOST_STARTS = 12
OPERATION, MOMENT = "by SIGKILL before a random file operation", "by SIGKILL at a random moment"


@dataclass(frozen=True)
class Kill:
    """seconds from the start; or operation: the number of the file operation below the run's folder."""

    seconds: float = 0.0
    operation: int = 0


@dataclass
class Tally:
    """What was seen in all runs. problems: for a person to read."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    lost: int = 0
    files: int = 0
    corrupt: int = 0
    other_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def work(root: str, name: str, seed: int, log_file: str, kill: Kill | None) -> None:
    """In a process of its own: the command that a user types."""
    with open(log_file, "a", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        os.environ["HARALD_ROOT"] = root
        torch.set_num_threads(1)
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=out, force=True)
        operations = Operations(Path(root, "output", "train", name), kill.operation if kill else 0)
        sys.addaudithook(operations)
        if kill and kill.seconds:
            threading.Timer(kill.seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        flags = ["--preset", "tiny", "--steps", str(STEPS), "--overrides", json.dumps(SMALL)]
        cli.main(["train", "--run-name", name, "--seed", str(seed), *flags])
        print(f"{operations.seen} file operations", flush=True)
        os._exit(0)


class Operations:
    """Counts the file operations below a folder (an audit hook), and kills this process just before the last one."""

    def __init__(self, folder: Path, last: int):
        self.folder, self.last, self.seen = str(folder), last, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event in WATCHED and str(arguments[0]).startswith(self.folder):
            self.seen += 1
            if self.seen == self.last:
                os.kill(os.getpid(), signal.SIGKILL)


def start(root: Path, name: str, seed: int, log_file: Path, kill: Kill | None) -> int:
    """One start of a run, to its end. Returns its exit code."""
    arguments = (str(root), name, seed, str(log_file), kill)
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    process.join(300)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode or 0


def undisturbed(root: Path, seed: int) -> tuple[float, int]:
    """The run that the others are compared with. Returns its seconds and its number of file operations."""
    began = time.monotonic()
    name, log_file = f"whole-{seed}", root / f"whole-{seed}.log"
    if start(root, name, seed, log_file, None):
        raise SystemExit(f"an undisturbed run failed:\n{log_file.read_text()}")
    counted = re.search(r"(\d+) file operations", log_file.read_text())
    assert counted, "every run that ends says so"
    return time.monotonic() - began, int(counted[1])


def torture(root: Path, name: str, seed: int, kills: list[Kill], tally: Tally) -> None:
    """One run, killed at each of the moments in turn, then left alone."""
    log_file, durable = root / f"{name}.log", 0
    for number in range(MOST_STARTS):
        read = log_file.stat().st_size if log_file.exists() else 0
        kill = kills[number] if number < len(kills) else None
        code = start(root, name, seed, log_file, kill)
        said = log_file.read_text()[read:]
        if code == -signal.SIGKILL and kill:
            tally.kills[OPERATION if kill.operation else MOMENT] += 1
        elif code:
            tally.problems.append(f"{name}: start {number} ended with {code}: {said.splitlines()[-2:]}")
        durable = heard(name, said, durable, number > 0, tally)
        if code == 0:
            break
    compare(*(root / "output" / "train" / each for each in (name, f"whole-{seed}")), tally)


def heard(name: str, said: str, durable: int, resumed: bool, tally: Tally) -> int:
    """What a start says of itself. durable: the last step whose checkpoint was written before; returned as of now."""
    if began := STARTED.search(said):
        tally.resumes += resumed
        if int(began[1]) < durable:
            tally.lost += 1
            tally.problems.append(f"{name}: went on from step {began[1]}, {durable} was durable")
    if "is passed over" in said:
        tally.corrupt += 1
        tally.problems.append(f"{name}: a damaged checkpoint was found")
    return max([durable, *(int(step) for step in DURABLE.findall(said))])


def compare(folder: Path, whole: Path, tally: Tally) -> None:
    """An ended run with an undisturbed one."""
    tally.runs += 1
    check(folder, tally)
    if contract(folder) != contract(whole):
        tally.other_bytes += 1
        differ = sorted(set(contract(folder).items()) ^ set(contract(whole).items()))
        tally.problems.append(f"{folder.name}: other files than {whole.name}: {sorted({path for path, _ in differ})}")


def check(folder: Path, tally: Tally) -> None:
    """Every file of an ended run is whole, and nothing half written is left."""
    for path in folder.rglob("*"):
        if path.is_file() and "trackio" not in path.parts:
            tally.files += 1
            if problem := damage(path):
                tally.corrupt += 1
                tally.problems.append(f"{path.relative_to(folder.parent)}: {problem}")
    if (folder / runs.LEASE).exists():
        tally.problems.append(f"{folder.name}: its lease is still there")


def damage(path: Path) -> str:
    """Empty for a file that is whole."""
    try:
        if path.suffix == ".tmp":
            return "left over"
        if path.name == STATE:
            hashes = json.loads(path.read_text())["sha256"]
            return "; ".join(name for name, value in hashes.items() if runs.sha256(path.with_name(name)) != value)
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if path.stat().st_size else "empty"


def contract(folder: Path) -> dict[str, str]:
    """Hash of everything that must be the same bytes."""
    parts = ("checkpoints", "samples", "metrics.jsonl")
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.relative_to(folder).parts[0] in parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def plans(jobs: int, seed: int, seconds: float, operations: int) -> Iterator[list[Kill]]:
    """Moments for every run: by time up to an undisturbed run's length, or by file operation."""
    draw = random.Random(seed)
    for _ in range(jobs):
        count = draw.choice((1, 1, 2))
        yield [
            Kill(operation=draw.randint(1, operations)) if draw.random() < 0.5
            else Kill(seconds=max(0.01, draw.random() * seconds))
            for _ in range(count)
        ]  # fmt: skip


def soak(root: Path, jobs: int, seed: int, variants: int = VARIANTS) -> Tally:
    """`jobs` runs below root. Returns what was seen."""
    write_dataset(root, states=4, views=2)
    began = time.monotonic()
    lengths, operations = zip(*(undisturbed(root, variant) for variant in range(variants)), strict=True)
    tally = Tally()
    for number, kills in enumerate(plans(jobs, seed, min(lengths), min(operations))):
        name = f"run-{number:03d}"
        torture(root, name, number % len(lengths), kills, tally)
        shutil.rmtree(root / "output" / "train" / name)
        if (number + 1) % 10 == 0:
            left = (time.monotonic() - began) / (number + 1) * (jobs - number - 1)
            print(f"{number + 1}/{jobs} runs, {sum(tally.kills.values())} kills, {left / 60:.0f} min left", flush=True)
    return tally


def rows(tally: Tally, where: str = "soak") -> list[dict]:
    counts = {
        f"{where}: checkpoints lost at a resume": (tally.lost, tally.resumes),
        f"{where}: corrupt files": (tally.corrupt, tally.files),
        f"{where}: runs that end with other bytes than an undisturbed one": (tally.other_bytes, tally.runs),
    }
    kills = ", ".join(f"{count} times {how}" for how, count in sorted(tally.kills.items()))
    return results.counted(counts, f"{tally.runs} runs of {STEPS} steps, ended {kills or 'never'}")


def main() -> int:
    options = results.flags("kill training runs at random moments and look for what is lost", 200).parse_args()
    with tempfile.TemporaryDirectory() as root:
        tally = soak(Path(root), options.jobs, options.seed)
    return results.report(rows(tally), tally.problems, options.into, options.seed)


if __name__ == "__main__":
    sys.exit(main())

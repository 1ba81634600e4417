"""The fan-out of prepare against the stand-in of Modal: its containers are killed or preempted at random.

python -m tests.modal.prepare_soak --jobs 25 --seed 0 --into docs/results/production.json
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harald.config import DATASETS
from harald.data.latents import read_index
from harald.data.shards import SUFFIX, Shard
from harald.errors import DatasetError
from harald.runs import sha256
from tests import results
from tests.modal.conftest import REPOSITORY, SECRET, write_states

STATES = 12  # of four pictures each
SMALL = {"prepare.pictures_per_shard": 1, "prepare.containers": 4}
SECONDS = 3.0  # in which a part is killed, from where its container takes it: about as long as an undisturbed one
MOST_STARTS = 6
WRITTEN = re.compile(r"shard (\w+) written")
KILLED, PREEMPTED = "by SIGKILL of its container", "by preemption"


@dataclass
class Tally:
    """What was seen in all jobs. parts: that were dealt out; problems: for a person to read."""

    jobs: int = 0
    starts: int = 0
    parts: int = 0
    shards: int = 0
    written: int = 0
    twice: int = 0
    lost: int = 0
    other: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def drive(jobs: int, state: Path) -> None:
    """Inside the stand-in: one job after another, each on an empty cache and started until it ends well."""
    from harald.config import app
    from harald.modal_runner import prepare

    output = state / "volumes" / "harald-output"
    with app.run():
        for number in range(jobs):
            name, starts = f"run-{number:03d}", 0
            while starts < MOST_STARTS:
                starts += 1
                try:
                    prepare.spawn(preset="tiny", run_name=name, overrides=json.dumps(SMALL)).get()
                    break
                except Exception as error:  # noqa: BLE001 (whatever it is, the user starts the job again)
                    print(f"{name}: {type(error).__name__}: {error}".splitlines()[0], flush=True)
            kept = state / "kept" / name
            shutil.move(output / "latents", kept / "latents")
            shutil.copytree(output / "prepare" / name, kept / "prepare" / name)
            for log in (state / "calls").glob("*.log"):
                shutil.move(log, kept / log.name)
            print(json.dumps({"job": name, "starts": starts}), flush=True)


def service(state: Path, jobs: int, *flags: str) -> dict[str, int]:
    """One start of the stand-in. Returns job -> how often it was started."""
    command = [sys.executable, "-m", "tests.fakemodal", "--state", str(state), "--secret", SECRET, *flags]
    command += ["--container-env", "OMP_NUM_THREADS=1", "--container-env", "HF_HUB_OFFLINE=1", "--"]
    command += [sys.executable, "-m", "tests.modal.prepare_soak", "--drive", str(state), "--jobs", str(jobs)]
    starts: dict[str, int] = {}
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                ended = json.loads(line)
                starts[ended["job"]] = ended["starts"]
            print(line, end="", flush=True)
    return starts


def shards(kept: Path) -> dict[str, str]:
    """File name -> hash of its bytes. What a killed part left half written has another ending, and goes after a day."""
    return {path.name: sha256(path) for path in (kept / "latents").glob(f"*/*{SUFFIX}")}


def soak(state: Path, jobs: int, seed: int) -> Tally:
    write_states(state / "volumes" / DATASETS[1], first=100, training=STATES - 2, validation=2)
    service(state, 1)
    whole = shards((state / "kept" / "run-000").rename(state / "undisturbed"))
    starts, tally = service(state, jobs, "--disturb", f"part:{SECONDS}", "--seed", str(seed)), Tally()
    for name, count in starts.items():
        look(state / "kept" / name, whole, tally)
        tally.starts += count
    return tally


def look(kept: Path, whole: dict[str, str], tally: Tally) -> None:
    """One ended job."""
    found, name = shards(kept), kept.name
    said = "".join(log.read_text() for log in kept.glob("*.log"))
    written = Counter(WRITTEN.findall(said))
    tally.jobs += 1
    tally.shards += len(whole)
    tally.written += written.total()
    tally.parts += min(SMALL["prepare.containers"], len(whole))
    tally.twice += sum(count - 1 for count in written.values())
    tally.lost += len(whole.keys() - found.keys())
    damaged = [file for file in found.keys() & whole.keys() if found[file] != whole[file]]
    tally.other += len(damaged) + len(found.keys() - whole.keys())
    tally.ends[KILLED] += said.count("[stand-in] killing")
    tally.ends[PREEMPTED] += said.count("[stand-in] preempting")
    for what, which in (("written twice", [s for s, n in written.items() if n > 1]), ("damaged", damaged)):
        tally.problems += [f"{name}: shard {shard} was {what}" for shard in which]
    try:
        key, entries = read_index(kept / "prepare" / name)
        held = [p for path in (kept / "latents").glob(f"*/*{SUFFIX}") for p in Shard(path, key).pictures]
        if len(held) != len(set(held)) or {entry.seen.sha256.hex() for entry in entries.values()} != set(held):
            tally.problems.append(f"{name}: the index and the shards do not hold the same pictures, each once")
            tally.other += 1
    except DatasetError as error:
        tally.problems.append(f"{name}: {error}")
        tally.other += 1


def rows(tally: Tally) -> list[dict[str, Any]]:
    counts = {
        "prepare in the stand-in: shards lost": (tally.lost, tally.shards),
        "prepare in the stand-in: shards encoded again that were written": (tally.twice, tally.written),
        "prepare in the stand-in: other files or bytes than an undisturbed job's": (tally.other, tally.shards),
    }
    ends = ", ".join(f"{count} times {how}" for how, count in sorted(tally.ends.items()))
    note = f"{tally.jobs} jobs of {tally.parts} parts in all, started {tally.starts} times; parts ended {ends}"
    return results.counted(counts, note)


def main() -> int:
    flags = results.flags("kill containers of prepare's fan-out and look for what is lost", 25)
    flags.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    options = flags.parse_args()
    if options.drive:
        drive(options.jobs, options.drive)
        return 0
    with tempfile.TemporaryDirectory() as state:
        tally = soak(Path(state), options.jobs, options.seed)
    return results.report(rows(tally), tally.problems, options.into, options.seed)


if __name__ == "__main__":
    sys.exit(main())

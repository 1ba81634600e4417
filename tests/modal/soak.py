"""The soak against the stand-in of Modal: containers are killed or preempted at random, the service starts others.

python -m tests.modal.soak --jobs 200 --seed 0 --into docs/results/production.json
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from harald.config import DATASETS
from tests import results
from tests.modal.conftest import REPOSITORY, SECRET, write_states
from tests.soak import SMALL, STARTED, STEPS, VARIANTS, Tally, compare, heard

SECONDS = 8.0  # in which a call is killed, from where its container takes it: about as long as an undisturbed one
KILLED, PREEMPTED = "by SIGKILL of its container at a random moment", "by preemption at a random moment"


def drive(jobs: int) -> None:
    """Inside the stand-in: the undisturbed runs first, then all others, a few at a time. Prints run -> call."""
    from harald.config import app
    from harald.modal_runner import train

    def spawn(name: str, seed: int):
        return train.spawn(preset="tiny", run_name=name, seed=seed, steps=STEPS, overrides=json.dumps(SMALL))

    with app.run():
        calls = {f"run-{number:03d}": spawn(f"run-{number:03d}", number % VARIANTS) for number in range(jobs)}
        ended = {}
        for done, (name, call) in enumerate(calls.items(), 1):
            try:
                call.get()
                ended[name] = ""
            except Exception as error:  # noqa: BLE001 (whatever it is, the run did not end well)
                ended[name] = f"{type(error).__name__}: {error}"
            if done % 10 == 0:
                print(f"{done}/{jobs} runs", flush=True)
    print(json.dumps({name: [call.object_id, ended[name]] for name, call in calls.items()}))


def service(state: Path, *flags: str, jobs: int, first: bool) -> dict[str, list[str]]:
    """One start of the stand-in. Returns run -> (call, why it did not end well)."""
    command = [sys.executable, "-m", "tests.fakemodal", "--state", str(state), "--secret", SECRET, *flags]
    command += ["--container-env", "OMP_NUM_THREADS=1", "--container-env", "HF_HUB_OFFLINE=1", "--"]
    command += [sys.executable, "-m", "tests.modal.soak", "--drive", "--jobs", str(jobs)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if not first and not line.startswith("{"):
                print(line, end="", flush=True)
    return json.loads(lines[-1])


def soak(state: Path, jobs: int, seed: int) -> Tally:
    write_states(state / "volumes" / DATASETS[1], first=100, training=4, validation=1)
    output, tally = state / "volumes" / "harald-output" / "train", Tally()
    undisturbed = service(state, jobs=VARIANTS, first=True)
    assert not any(why for _, why in undisturbed.values()), undisturbed
    wholes = [(output / name).rename(output / f"whole-{seed}") for seed, name in enumerate(undisturbed)]
    calls = service(state, "--disturb", f"train:{SECONDS}", "--seed", str(seed), jobs=jobs, first=False)
    for number, (name, (call, why)) in enumerate(calls.items()):
        said = (state / "calls" / f"{call}.log").read_text()
        tally.kills[KILLED] += said.count("[stand-in] killing")
        tally.kills[PREEMPTED] += said.count("[stand-in] preempting")
        if why:
            tally.problems.append(f"{name}: {why}")
        durable, starts = 0, re.split(f"(?={STARTED.pattern})", said)[1:]
        for start, part in enumerate(starts):
            durable = heard(name, part, durable, start > 0, tally)
        compare(output / name, wholes[number % VARIANTS], tally)
    return tally


def main() -> int:
    from tests.soak import rows

    flags = results.flags("kill containers of the stand-in and look for what is lost", 200)
    flags.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    options = flags.parse_args()
    if options.drive:
        drive(options.jobs)
        return 0
    with tempfile.TemporaryDirectory() as state:
        tally = soak(Path(state), options.jobs, options.seed)
    return results.report(rows(tally, "soak in the stand-in"), tally.problems, options.into, options.seed)


if __name__ == "__main__":
    sys.exit(main())

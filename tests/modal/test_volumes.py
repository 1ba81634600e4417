"""Data in and results out, by the commands of the README, with the real `modal volume`."""

import re
import shlex
import shutil

import pytest

from harald.config import DATASETS
from tests.modal.conftest import REPOSITORY, Cloud, write_states

pytestmark = pytest.mark.modal

PAGES = [REPOSITORY / "README.md", REPOSITORY / "docs/first_hour.md"]  # not there in a container of the job `tests`
TEXT = "\n".join(page.read_text() for page in PAGES if page.exists())
COMMANDS = re.findall(r"^    modal (volume .*?)(?: +#.*)?$", TEXT, re.MULTILINE)
CREATE, PUT, GET = ([shlex.split(c) for c in COMMANDS if c.startswith(f"volume {v}")] for v in ("create", "put", "get"))


@pytest.mark.parametrize("words", PUT, ids=" ".join)
def test_upload_puts_the_states_where_jobs_look_for_them(cloud: Cloud, tmp_path, words):
    *_, volume, folder, _ = words
    states = write_states(tmp_path / folder, first=100, training=2, validation=0)
    mounted = cloud.state / "volumes" / DATASETS[1]
    if mounted.exists():
        shutil.rmtree(mounted)
    assert cloud.modal(*CREATE[0]).code == 0
    done = cloud.modal(*words, cwd=tmp_path)
    assert done.code == 0, done.output
    assert volume == DATASETS[1] and sorted(path.name for path in mounted.iterdir()) == sorted(states)
    again = cloud.modal(*words, cwd=tmp_path)
    assert again.code != 0 and "exists" in again.output
    write_states(tmp_path / folder, first=300, training=1, validation=0)
    assert cloud.modal(*words, "--force", cwd=tmp_path).code == 0
    assert len(list(mounted.iterdir())) == 3 and all(list(home.glob("*.png")) for home in mounted.iterdir())


@pytest.mark.parametrize("words", GET, ids=" ".join)
def test_results_come_to_this_machine(cloud: Cloud, tmp_path, words):
    assert cloud.modal("volume", "create", "harald-output", "--version", "2").code == 0 or cloud.output.exists()
    place = words[3].replace("<run>", "run")
    there = cloud.output / place
    there = there if there.suffix else there / "run" / "seed_0.png"
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_bytes(b"what was written")
    done = cloud.modal(*[word.replace("<run>", "run") for word in words], cwd=tmp_path)
    assert done.code == 0, done.output
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.read_bytes() == b"what was written" and file.name == there.name
    if not words[3].endswith(".html"):
        assert file.relative_to(tmp_path).parts[0] == words[3].rstrip("/").rpartition("/")[2]

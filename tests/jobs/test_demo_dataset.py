import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harald import runs, settings
from harald.data.index import states_for
from harald.data.parts import ENDING
from harald.data.people import PEOPLE
from harald.data.scan import scan
from harald.errors import ConfigError
from harald.jobs import demo_dataset
from harald.proving_ground.persons import STATE_ATTRIBUTES
from harald.runtime import Runtime

CONFIG = settings.resolve("tiny")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(demo_dataset, "SIDE", 32)
    monkeypatch.setattr(demo_dataset, "BLOCK", 2)


def run(runtime, config, run_name, states, **flags):
    return demo_dataset.run(runtime, config, run_name, states=states, **{"views": 4, "workers": 1, **flags})


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_written_set_is_a_healthy_data_set(tmp_path):
    result = run(Runtime.local(tmp_path), CONFIG, "", states=4)
    states = states_for(Runtime.local(tmp_path), CONFIG)
    assert result["states"] == len(states) == 4
    assert {s.base for s in states} == {1, 2}
    for state in states:
        assert (state.separation, state.domains) == ("shared", ("comic", "photo"))
        assert len(state.views) == 4
        assert any(word in state.person for word in ("hair", "bald", "bob", "afro", "mohawk"))
        for view in state.views:
            assert view.person_prompt.startswith(f"{view.domain} of <person>, ")
            assert not any(word in view.person_prompt for word in ("hair", "glasses", "beard", "earrings", "wearing"))


def test_again_with_the_same_flags_changes_nothing_and_more_states_complete_it(tmp_path):
    runtime = Runtime.local(tmp_path)
    run(runtime, CONFIG, "", states=2)
    before = content(tmp_path / "dataset")
    next((tmp_path / "dataset/1").rglob("photo_view_01.png")).unlink()  # as after a stop
    assert run(runtime, CONFIG, "", states=2)["written"] == 1
    assert content(tmp_path / "dataset") == before
    assert run(runtime, CONFIG, "", states=2)["written"] == 0
    assert run(runtime, CONFIG, "", states=3)["written"] == 1
    after = content(tmp_path / "dataset")
    assert all(after[name].startswith(before[name]) for name in before if name.name == PEOPLE)
    assert {name for name in before if after[name] != before[name]} == {Path("1") / PEOPLE}


def test_tables_of_the_base_folders_say_which_states_are_one_person(tmp_path):
    runtime = Runtime.local(tmp_path)
    run(runtime, CONFIG, "", states=4)
    states = sorted(states_for(Runtime.local(tmp_path), CONFIG), key=lambda state: state.identity)
    assert [state.identity for state in states] == ["person_0", "person_0", "person_1", "person_1"]
    (tmp_path / "dataset/1" / PEOPLE).write_text("state_id,person\nseed_1,mine\n")
    with pytest.raises(ConfigError, match="names states"):
        run(runtime, CONFIG, "", states=4)


@pytest.mark.parametrize("change", ["other seed", "edited file", "extra file", "real state"])
def test_states_of_somebody_else_are_never_touched(tmp_path, change):
    runtime = Runtime.local(tmp_path)
    run(runtime, CONFIG, "", states=1)
    (ours,) = (tmp_path / "dataset/1").glob("seed_*")
    config = CONFIG
    match change:
        case "other seed":
            config = dataclasses.replace(CONFIG, seed=1)
        case "edited file":
            (ours / "photo_view_01.txt").write_text("mine")
        case "extra file":
            (ours / "photo_view_99.png").write_bytes(b"mine")
        case "real state":
            (tmp_path / "dataset/2/seed_1").mkdir(parents=True)
    before = content(tmp_path / "dataset")
    with pytest.raises(ConfigError, match="dataset"):
        run(runtime, config, "", states=2)
    assert content(tmp_path / "dataset") == before


def test_on_modal_it_goes_to_the_output_volume(tmp_path):
    runtime = dataclasses.replace(Runtime.local(tmp_path), remote_map=lambda name, items: [])
    result = run(runtime, CONFIG, "demo", states=2)
    assert result["dataset"] == str(tmp_path / "output/demo_dataset/demo/dataset")
    assert not (tmp_path / "dataset").exists()
    assert len(list((tmp_path / "output").rglob("*_view_*.png"))) == 8


@pytest.mark.parametrize("states", [0, -1, 10**6])
def test_senseless_number_of_states_is_refused(tmp_path, states):
    with pytest.raises(ConfigError, match="--states"):
        run(Runtime.local(tmp_path), CONFIG, "", states=states)


def test_truth_stands_beside_the_data(tmp_path):
    run(Runtime.local(tmp_path), CONFIG, "", states=5, held_out=True)
    files = sorted((tmp_path / "dataset/truth").glob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert len(files) == 3
    assert len(rows) == 20 and {row["state_id"] for row in rows} == {p.name for p in tmp_path.glob("dataset/*/seed_*")}
    for row in rows:
        name = f"{row['base']}/{row['state_id']}/{row['domain']}_view_{row['view']:02d}"
        assert runs.sha256(tmp_path / f"dataset/{name}.png") == row["sha256_png"]
        assert row["identity"] == row["index"] // 2
        assert row["glasses"] in STATE_ATTRIBUTES["glasses"] and isinstance(row["glasses_seen"], bool)
        assert row["pixels_hair"] >= 0


def test_masks_stand_beside_the_pictures_where_they_are_asked_for_and_change_nothing_else(tmp_path):
    run(Runtime.local(tmp_path / "a"), CONFIG, "", states=3)
    for _ in range(2):
        again = run(Runtime.local(tmp_path / "b"), CONFIG, "", states=3, parts=True)
    assert again["written"] == 0
    plain, masked = content(tmp_path / "a/dataset"), content(tmp_path / "b/dataset")
    masks = {name for name in masked if name.name.endswith(ENDING)}
    assert len(masks) == 12
    pictures = {name for name in plain if name.suffix in (".png", ".txt", ".csv")}
    assert all(masked[name] == plain[name] for name in pictures)
    assert not [p for found in scan(Runtime.local(tmp_path / "b").datasets, CONFIG.data) for p in found.problems]
    rows = [row for file in (tmp_path / "b/dataset/truth").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    for row in rows:
        name = f"{row['base']}/{row['state_id']}/{row['domain']}_view_{row['view']:02d}"
        shown = (
            np.asarray(Image.open(tmp_path / f"b/dataset/{name}{ENDING}"), dtype=float).sum() / 255 * (128 / 32) ** 2
        )
        worn = sum(row[f"pixels_{part}"] for part in ("frame", "earring", "earring_gem", "necklace", "necklace_gem"))
        assert shown == pytest.approx(worn, rel=0.02, abs=3)
    assert any(row["pixels_frame"] for row in rows)


def test_data_set_of_other_masks_is_refused_and_one_that_says_nothing_of_them_has_none(tmp_path):
    run(Runtime.local(tmp_path), CONFIG, "", states=1)
    record = tmp_path / "dataset/truth/plan.json"
    before = json.loads(record.read_text())
    assert before.pop("parts") is False
    record.write_text(json.dumps(before))
    assert run(Runtime.local(tmp_path), CONFIG, "", states=1)["written"] == 0
    with pytest.raises(ConfigError, match="other flags"):
        run(Runtime.local(tmp_path), CONFIG, "", states=1, parts=True)


def test_state_free_prompts_say_nothing_of_the_person(tmp_path):
    run(Runtime.local(tmp_path), CONFIG, "", states=2, state_free=True)
    texts = [p.read_text() for p in tmp_path.glob("dataset/*/*/*.txt")]
    assert len(texts) == 8 and all(" of person, " in text for text in texts)


def test_processes_write_the_same_bytes_as_one(tmp_path):
    run(Runtime.local(tmp_path / "a"), CONFIG, "", states=3, workers=1)
    run(Runtime.local(tmp_path / "b"), CONFIG, "", states=3, workers=2)
    one, two = content(tmp_path / "a/dataset"), content(tmp_path / "b/dataset")
    assert one == two

import dataclasses

import pytest

from harald import settings
from harald.data.index import states_for
from harald.errors import ConfigError
from harald.jobs import demo_dataset
from harald.runtime import Runtime

CONFIG = settings.resolve("mini")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(demo_dataset, "SIDE", 32)
    monkeypatch.setattr(demo_dataset, "VIEWS", 4)


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_written_set_is_a_healthy_data_set(tmp_path):
    result = demo_dataset.run(Runtime.local(tmp_path), CONFIG, "", states=4)
    states = states_for(Runtime.local(tmp_path), CONFIG)
    assert result["states"] == len(states) == 4
    assert {s.base for s in states} == {1, 2}
    for state in states:
        assert (state.separation, state.domains) == ("shared", ("comic", "photo"))
        assert len(state.views) == 4
        assert "hair" in state.person or "bald" in state.person
        for view in state.views:
            assert view.person_prompt.startswith(f"{view.domain} of <person>, ")
            assert not any(word in view.person_prompt for word in ("hair", "glasses", "beard", "earrings", "sweater"))


def test_again_with_the_same_flags_changes_nothing_and_more_states_complete_it(tmp_path):
    runtime = Runtime.local(tmp_path)
    demo_dataset.run(runtime, CONFIG, "", states=2)
    before = content(tmp_path / "dataset")
    next((tmp_path / "dataset/1").rglob("photo_view_01.png")).unlink()  # as after a stop
    assert demo_dataset.run(runtime, CONFIG, "", states=2)["written"] == 1
    assert content(tmp_path / "dataset") == before
    assert demo_dataset.run(runtime, CONFIG, "", states=2)["written"] == 0
    assert demo_dataset.run(runtime, CONFIG, "", states=3)["written"] == 1
    assert before.items() <= content(tmp_path / "dataset").items()


@pytest.mark.parametrize("change", ["other seed", "edited file", "extra file", "real state"])
def test_states_of_somebody_else_are_never_touched(tmp_path, change):
    runtime = Runtime.local(tmp_path)
    demo_dataset.run(runtime, CONFIG, "", states=1)
    (ours,) = (tmp_path / "dataset/1").iterdir()
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
        demo_dataset.run(runtime, config, "", states=2)
    assert content(tmp_path / "dataset") == before


def test_on_modal_it_goes_to_the_output_volume(tmp_path):
    runtime = dataclasses.replace(Runtime.local(tmp_path), remote_map=lambda name, items: [])
    result = demo_dataset.run(runtime, CONFIG, "demo", states=2)
    assert result["dataset"] == str(tmp_path / "output/demo_dataset/demo/dataset")
    assert not (tmp_path / "dataset").exists()
    assert len(list((tmp_path / "output").rglob("*_view_*.png"))) == 8


@pytest.mark.parametrize("states", [0, -1, 10**6])
def test_senseless_number_of_states_is_refused(tmp_path, states):
    with pytest.raises(ConfigError, match="--states"):
        demo_dataset.run(Runtime.local(tmp_path), CONFIG, "", states=states)

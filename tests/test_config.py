"""Presets, overrides, hashes and run folders; and that a machine with nothing but modal can start a job."""

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harald.config import IMAGE_LOCK, PINS, PRESETS, TEST_PINS, ModelRef, Phase, full, mini, tiny
from harald.errors import ConfigError
from harald.runs import find_run, load_config, open_run, safe_name
from harald.settings import config_hash, from_json, identity_hash, resolve, to_json
from harald.training.loop import learning_rate

LOCK = Path(__file__).parents[1] / "requirements.lock"

IMPORT_WITH_ONLY_MODAL = """
import sys
heavy = set({heavy!r})
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)
sys.meta_path.insert(0, Absent)
import harald.config, harald.modal_runner
assert len(harald.modal_runner.JOBS) > 10
assert not heavy & {{name.partition(".")[0] for name in sys.modules}}
"""


def test_config_and_runner_import_on_a_machine_that_has_only_modal():
    modules = {"pillow": "PIL"}
    heavy = sorted(modules.get(name, name) for name in PINS)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITH_ONLY_MODAL.format(heavy=heavy)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not LOCK.exists(), reason="this is no checkout: there is no requirements.lock")
def test_image_pins_are_the_versions_of_the_lock_file():
    lines = LOCK.read_text().splitlines()
    locked = {plain(name): version for name, version in (line.split("==") for line in lines)}
    assert {plain(n): v for n, v in (PINS | TEST_PINS).items()} == {
        plain(n): locked[plain(n)] for n in PINS | TEST_PINS
    }


def test_lock_of_the_image_holds_the_pins_and_a_hash_of_every_file():
    packages = re.split(r"\n(?=\S)", IMAGE_LOCK.read_text().strip())
    found = [re.fullmatch(r"(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)", package) for package in packages]
    assert all(found), [package for package, match in zip(packages, found, strict=True) if not match][:1]
    locked = {plain(match[1]): match[2] for match in found if match}
    assert {plain(n): v for n, v in (PINS | TEST_PINS).items()}.items() <= locked.items()


def plain(name: str) -> str:
    """A package's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_survives_json(preset):
    config = PRESETS[preset]()
    assert from_json(to_json(config)) == config
    assert resolve(preset) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ('{"train.stepz": 3}', "unknown key 'train.stepz' in --overrides\n  fix: did you mean 'steps'?"),
        ('{"trian": {"steps": 3}}', "unknown key 'trian' in --overrides\n  fix: did you mean 'train'?"),
        ('{"train": 3}', "train is a section"),
        ('{"seed.x": 3}', "seed is a value and has no fields"),
        ('{"train.steps": "three"}', 'train.steps = "three"'),
        ('{"train.steps": 3.5}', "train.steps = 3.5"),
        ('{"deterministic": 1}', "deterministic = 1"),
        ('{"injection.point": "middle"}', 'injection.point = "middle"'),
        ('{"encoder.groups": [["face", "4"]]}', 'encoder.groups.0.1 = "4"'),
        ('{"train.phases.4.steps": 3}', "unknown entry 'train.phases.4' in --overrides\n  fix: known: 0 'warm-up', 1"),
        ('{"train.phases.mixt.steps": 3}', "unknown entry 'train.phases.mixt' in --overrides\n  fix: known: 0"),
        ('{"train.phases.mixed.stepz": 3}', "unknown key 'train.phases.mixed.stepz' in --overrides\n  fix: did"),
        ('{"train.phases.mixed": 3}', "train.phases.mixed is a section"),
        ('{"train.phases.mixed.rates.0": 3}', "train.phases.mixed.rates is a value and has no fields"),
        ('{"train.phases.2.steps": "three"}', 'train.phases.2.steps = "three"'),
        ('{"train": {"phases": [], "phases.0.steps": 3}}', "train.phases is empty"),
        ('{"poc.scenes.0": "asleep"}', "poc.scenes is a value and has no fields"),
        ("{train}", "--overrides is not JSON"),
        ("[1]", "--overrides is a list, not an object"),
    ],
)
def test_wrong_override_is_refused_with_its_name_and_advice(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve("mini", overrides=overrides)


def test_wrong_type_names_the_field_and_nothing_else():
    with pytest.raises(ConfigError) as caught:
        resolve("mini", overrides='{"train.learning_rate": "fast", "seed": 3}')
    assert "train.learning_rate" in str(caught.value) and "seed" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        '{"train.steps": 0}',
        '{"generate.steps": 1}',
        '{"train.drop_text": 1.5}',
        '{"train.learning_rate": 0.0}',
        '{"data.image_size": 100}',
        '{"data.min_views": 1}',
        '{"data.max_states": -1}',
        '{"train.part_weight": 0}',
        '{"encoder.groups": []}',
        '{"encoder.groups": [["face", 0]]}',
        '{"encoder.groups": [["face", 2], ["face", 2]]}',
        '{"injection.class_word": " "}',
        '{"poc.scenes": []}',
    ],
)
def test_value_out_of_range_is_refused_by_name(overrides):
    field = overrides.split('"')[1]
    with pytest.raises(ConfigError, match=re.escape(field)):
        resolve("mini", overrides=overrides)


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ConfigError, match=f"--seed is {seed}"):
        resolve("mini", seed=seed)


def test_unknown_preset_is_answered_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'mini'"):
        resolve("minni")


def test_dotted_and_nested_overrides_mean_the_same():
    nested = resolve("mini", 5, '{"train": {"steps": 7}, "poc": {"batch": 1}}')
    assert nested == resolve("mini", 5, '{"train.steps": 7, "poc.batch": 1}')
    assert (nested.train.steps, nested.poc.batch, nested.seed) == (7, 1, 5)


def test_override_reaches_one_field_of_one_phase_by_its_number_or_its_name():
    overrides = {
        "train.phases.0.teacher_weight": 0.5,
        "train": {"phases": {"cross_view": {"cross_domain_share": 0.0}, "twins-and_overrides.rates": [0.1, 0.0]}},
        "train.phases.twins and overrides.twins_together": None,
    }
    before, after = mini().train.phases, resolve("mini", overrides=json.dumps(overrides)).train.phases
    assert after == (
        replace(before[0], teacher_weight=0.5),
        replace(before[1], cross_domain_share=0.0),
        before[2],
        replace(before[3], rates=(0.1, 0.0), twins_together=None),
    )


def test_name_that_two_phases_have_is_refused_and_their_numbers_are_named():
    phase = {"name": "same", "steps": 5}
    overrides = {"train.phases": [phase, {**phase, "name": "other"}, phase], "train.phases.same.steps": 6}
    with pytest.raises(ConfigError, match=r"train.phases has 2 entries 'same'\n  fix: use a number: \[0, 2\]"):
        resolve("tiny", overrides=json.dumps(overrides))


def test_hash_depends_on_every_field_and_on_nothing_else():
    assert config_hash(resolve("mini", 1)) == config_hash(resolve("mini", overrides='{"seed": 1}'))
    changed = [resolve("mini", 1), resolve("mini", overrides='{"train.steps": 7}'), full()]
    assert len({config_hash(config) for config in (mini(), *changed)}) == 4


def test_hash_is_the_same_in_another_process():
    code = "from harald import config, settings; print(settings.config_hash(config.mini()))"
    environment = {"PYTHONHASHSEED": "1234"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == config_hash(mini())


@pytest.mark.parametrize("field", ["steps", "checkpoint_every", "keep_checkpoints", "sample_every", "workers"])
def test_identity_ignores_what_a_run_may_change_when_it_goes_on(field):
    config = mini()
    changed = replace(config, train=replace(config.train, **{field: getattr(config.train, field) + 1}))
    assert identity_hash(changed) == identity_hash(config)
    assert config_hash(changed) != config_hash(config)


@pytest.mark.parametrize("overrides", ['{"seed": 1}', '{"train.learning_rate": 0.5}', '{"train.latents": "x"}'])
def test_identity_depends_on_what_changes_the_bytes(overrides):
    assert identity_hash(resolve("mini", overrides=overrides)) != identity_hash(mini())


@pytest.mark.parametrize(
    "name", ["", "..", "../..", "a/b", "/etc", "a..b", ".hidden", "-x", "a b", "a\n", "é", "a" * 101]
)
def test_unsafe_run_name_is_refused(name):
    with pytest.raises(ConfigError, match=re.escape(f"--run-name is {name!r}")):
        safe_name(name, "--run-name")


def test_unsafe_run_name_writes_nothing(runtime):
    with pytest.raises(ConfigError):
        open_run(runtime, "train", "../../x", mini())
    assert not runtime.output.exists()


def test_run_folder_says_what_made_it(runtime):
    folder = open_run(runtime, "train", "one", mini())
    assert folder == runtime.output / "train" / "one"
    assert load_config(folder) == mini()
    assert config_hash(mini()) in (folder / "fingerprint.json").read_text()


def test_run_without_a_name_gets_one_for_each_config_and_each_input(runtime):
    def name(seed: int, **inputs: str) -> str:
        return open_run(runtime, "generate", "", resolve("mini", seed), **inputs).name

    assert name(0, prompt="a") == name(0, prompt="a")
    assert len({name(0, prompt="a"), name(0, prompt="b"), name(1, prompt="a")}) == 3
    assert name(1, prompt="a").startswith("mini-s1-")


def test_results_of_another_config_are_refused_with_the_difference(runtime):
    folder = open_run(runtime, "train", "one", mini())
    (folder / "metrics.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match=r"train\.learning_rate 0\.003 -> 0\.5"):
        open_run(runtime, "train", "one", resolve("mini", overrides='{"train.learning_rate": 0.5}'))
    assert load_config(folder) == mini()


def test_results_of_other_inputs_are_refused_with_the_difference(runtime):
    folder = open_run(runtime, "generate", "one", mini(), prompt="a")
    (folder / "seed_0.png").touch()
    with pytest.raises(ConfigError, match='prompt "a" -> "b"'):
        open_run(runtime, "generate", "one", mini(), prompt="b")


def test_run_that_has_no_results_yet_may_start_again_with_another_config(runtime):
    open_run(runtime, "train", "one", mini())
    assert load_config(open_run(runtime, "train", "one", full())) == full()


class Killed(BaseException):
    """As a kill, it lets nobody tidy up."""


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_run_that_was_killed_while_its_folder_was_made_starts_again(runtime, monkeypatch, writes):
    renames, replace_ = itertools.count(), os.replace

    def killed(source: Path, target: Path) -> None:
        if next(renames) == writes:
            raise Killed
        replace_(source, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("harald.runs.os.replace", killed)
        open_run(runtime, "generate", "one", mini(), prompt="a")
    folder = open_run(runtime, "generate", "one", mini(), prompt="a")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "fingerprint.json", "inputs.json"]


def test_run_goes_on_with_more_steps(runtime):
    (open_run(runtime, "train", "one", mini()) / "metrics.jsonl").write_text("{}")
    longer = resolve("mini", overrides='{"train.steps": 99}')
    assert load_config(open_run(runtime, "train", "one", longer)) == longer


def test_earlier_run_is_found_by_name_and_an_unknown_name_lists_the_known(runtime):
    folder = open_run(runtime, "train", "one", mini())
    assert find_run(runtime, "train", "one") == find_run(runtime, "train", "") == folder
    with pytest.raises(ConfigError, match="known: one"):
        find_run(runtime, "train", "two")
    with pytest.raises(ConfigError, match="there is no run of prepare"):
        find_run(runtime, "prepare", "")


def test_phase_replaces_fields_while_it_lasts_and_the_last_one_lasts():
    phases = (Phase("first", 2, teacher_weight=1.0), Phase("second", 3, state_free_share=0.5))
    train = replace(tiny().train, phases=phases)
    assert [train.at(step).teacher_weight for step in range(4)] == [1.0, 1.0, 0.0, 0.0]
    assert [train.at(step).state_free_share for step in (1, 2, 100)] == [train.state_free_share, 0.5, 0.5]
    assert tiny().train.at(7) == tiny().train


def test_stages_are_the_phases_that_run_in_their_order():
    train = replace(mini().train, stages=("twins and overrides", "warm-up"))
    assert [phase.name for phase in train.chosen] == ["twins and overrides", "warm-up"]
    assert [train.at(step).flow_weight for step in (0, 1399, 1400, 9999)] == [1.0, 1.0, 0.0, 0.0]
    assert learning_rate(1399, train) == pytest.approx(train.learning_rate * 0.02, rel=0.01)
    assert learning_rate(9999, train) == train.learning_rate, "the rate of the warm-up"


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (["mixt"], "0 of train.phases have the name 'mixt'\n  fix: did you mean 'mixed'"),
        (["mixed", "mixed"], "name each stage once"),
    ],
)
def test_stage_that_is_none_or_named_twice_is_refused(stages, said):
    with pytest.raises(ConfigError, match=said):
        resolve("mini", overrides=json.dumps({"train.stages": stages}))


def test_stage_that_does_not_run_is_not_asked_to_go_with_the_rest():
    silent = {"train.phases.mixed.teacher_weight": 0, "train.phases.mixed.override_share": 0.2}
    assert resolve("mini", overrides=json.dumps({**silent, "train.stages": ["warm-up"]})).train.at(9).flow_weight == 0
    with pytest.raises(ConfigError, match=r"phase 'mixed',\.override_share is 0\.2 without a teacher"):
        resolve("mini", overrides=json.dumps({**silent, "train.stages": ["mixed"]}))


def test_phases_are_checked_one_by_one():
    def phases(**field):
        return json.dumps({"train.phases": [{"name": "warm-up", "steps": 5}, {"name": "rest", "steps": 5, **field}]})

    assert resolve("tiny", 0, phases(teacher_weight=0.5)).train.at(5).teacher_weight == 0.5
    for field, said in (
        ({"state_free_share": 2.0}, "phase 'rest',.state_free_share is 2.0"),
        ({"flow_weight": 0.0}, "flow or teacher above 0"),
        ({"teacher": 1.0}, "teacher"),
        ({"override_share": 0.1}, "without a teacher"),
        ({"steps": 0}, "train.phases.1.steps is 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            resolve("tiny", 0, phases(**field))


def test_section_that_is_left_out_can_be_filled_by_its_fields():
    config = resolve("tiny", overrides='{"models.trained.repo": "me/my-encoder"}')
    assert config.models.trained == ModelRef("me/my-encoder")
    with pytest.raises(ConfigError, match=r"models\.trained"):
        resolve("tiny", overrides='{"models.trained.revision": "main"}')

"""Doctor: what is missing, with the command that mends it (the models' files: tests/published/test_doctor.py)."""

import pytest

from harald.jobs import doctor
from harald.settings import resolve
from tests.states import write_state


def test_data_set_that_was_uploaded_with_its_folder_is_told_how_to_be_uploaded(runtime):
    write_state(runtime.root / "dataset/1/my_people", 7)
    runtime = type(runtime).local(runtime.root)
    with pytest.raises(doctor.Unhealthy, match="one folder too deep") as refused:
        doctor.run(runtime, resolve("tiny"), "a")
    said = str(refused.value)
    assert "modal volume rm -r harald-dataset-1 my_people && modal volume put harald-dataset-1 my_people/ /" in said
    write_state(runtime.root / "dataset/1", 8)
    assert doctor.run(runtime, resolve("tiny"), "b")["checks"]


def test_output_that_cannot_be_written_hides_nothing_else(runtime):
    runtime.output.parent.mkdir(parents=True, exist_ok=True)
    runtime.output.write_text("a file in its place")
    with pytest.raises(doctor.Unhealthy) as refused:
        doctor.run(runtime, resolve("tiny"), "a")
    assert "cannot be written" in str(refused.value) and "no seed_<number> folder" in str(refused.value)

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from harald.errors import PersonFileError
from harald.injection.person_file import check_fits, load_person, save_person
from harald.records import PersonTokens
from tests.models import base


@pytest.fixture
def person():
    return PersonTokens(
        tokens=torch.randn(6, base().width), groups=(("face", 2), ("hair", 4)), point="output", base=base().repo,
        references=3, encoder="run/step", notes={"state_id": "seed_1"},
    )  # fmt: skip


def test_person_survives_the_file(person, tmp_path):
    save_person(tmp_path / "p.safetensors", person)
    loaded = load_person(tmp_path / "p.safetensors")
    assert torch.equal(loaded.tokens, person.tokens)
    assert dataclasses.replace(loaded, tokens=person.tokens) == person
    check_fits(loaded, base(), tmp_path / "p.safetensors")


def test_same_person_same_bytes(person, tmp_path):
    save_person(tmp_path / "a", person)
    save_person(tmp_path / "b", person)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_or_foreign_files_are_refused_with_the_reason(person, tmp_path):
    save_person(tmp_path / "good", person)
    cases = {
        "missing": "there is no person file",
        "empty": "cannot be read",
        "cut": "cannot be read",
        "foreign": "not a person file",
        "nan": "not finite",
    }
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-100])
    save_file({"weights": torch.zeros(3)}, tmp_path / "foreign")
    save_person(tmp_path / "nan", dataclasses.replace(person, tokens=torch.full((6, base().width), float("nan"))))
    for name, says in cases.items():
        with pytest.raises(PersonFileError, match=says):
            load_person(tmp_path / name)


def test_file_of_another_base_model_or_width_is_refused(person, tmp_path):
    other = dataclasses.replace(person, base="Qwen/Qwen-Image-2.1")
    narrow = dataclasses.replace(person, tokens=torch.zeros(6, 3))
    with pytest.raises(PersonFileError, match=r"made for Qwen/Qwen-Image-2\.1 \(width 64\), not for"):
        check_fits(other, base(), tmp_path / "p")
    with pytest.raises(PersonFileError, match=r"\(width 3\), not for"):
        check_fits(narrow, base(), tmp_path / "p")
    with pytest.raises(PersonFileError, match=r"\(width 64\), not for .* \(width 128 at point 'both'\)"):
        check_fits(dataclasses.replace(person, point="both"), base(), tmp_path / "p")
    check_fits(
        dataclasses.replace(person, point="both", tokens=torch.zeros(6, 2 * base().width)), base(), tmp_path / "p"
    )

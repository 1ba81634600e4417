import os
from pathlib import Path

import pytest

from harald.config import Data
from harald.data import folder as folder_module
from harald.data.findings import KINDS
from harald.data.scan import scan
from tests.data.folders import PNG, png, write_state, write_view

DATA = Data(min_side=32)


def read(*bases: Path, data: Data = DATA):
    found = list(scan(dict(enumerate(bases, 1)), data))
    return [f.state for f in found if f.state], [p for f in found for p in f.problems]


def only(problems, kind):
    (problem,) = [p for p in problems if p.kind == kind]
    assert problem.fix
    return problem


def test_healthy_states_come_in_numeric_order_of_base_and_number(tmp_path):
    for base, number in ((1, 10), (1, 9), (2, 1)):
        write_state(tmp_path / str(base), number)
    states, problems = read(tmp_path / "1", tmp_path / "2")
    assert [(s.base, s.state_id) for s in states] == [(1, "seed_9"), (1, "seed_10"), (2, "seed_1")]
    assert problems == []
    assert [(v.domain, v.number, v.width) for v in states[0].views] == [
        ("comic", 1, 64), ("comic", 2, 64), ("photo", 1, 64), ("photo", 2, 64)]  # fmt: skip
    assert states[0].person == "a man with a red beard"
    assert all("<person>" in v.person_prompt and "beard" not in v.person_prompt for v in states[0].views)


def test_domains_are_an_open_set_and_numbers_have_any_width(tmp_path):
    for name in ("oil painting_view_1", "my_view_comic_view_002", "photo_view_0003"):
        write_view(tmp_path / "seed_1", name)
    (state,), problems = read(tmp_path)
    assert problems == []
    assert [(v.domain, v.number) for v in state.views] == [("my_view_comic", 2), ("oil painting", 1), ("photo", 3)]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("truncated_picture", PNG[: len(PNG) // 2]),
        ("truncated_picture", PNG[:-4]),
        ("truncated_picture", PNG[:20]),
        ("truncated_picture", b""),
        ("truncated_picture", PNG[:18] + b"\x07" + PNG[19:]),
        ("not_png", b"\xff\xd8\xff\xe0" + PNG),
        ("not_png", b"<html>404</html>" * 10),
        ("too_small", png(16, 64)),
    ],
)
def test_bad_picture_is_named_and_skipped_and_the_rest_stays(tmp_path, kind, content):
    write_state(tmp_path, 1)
    write_view(tmp_path / "seed_1", "photo_view_07", picture=content)
    (state,), problems = read(tmp_path)
    problem = only(problems, kind)
    assert (problem.base, problem.state_id, problem.file) == (1, "seed_1", "photo_view_07.png")
    assert len(state.views) == 4


def test_bytes_after_the_end_of_a_picture_are_harmless(tmp_path):
    write_view(tmp_path / "seed_1", "photo_view_1", picture=PNG + b"\n\n")
    write_view(tmp_path / "seed_1", "photo_view_2")
    assert read(tmp_path)[1] == []


def test_damage_in_the_middle_is_found_only_when_pixels_are_verified(tmp_path):
    broken = bytearray(PNG)
    broken[len(PNG) // 2] ^= 0xFF
    write_state(tmp_path, 1)
    write_view(tmp_path / "seed_1", "photo_view_07", picture=bytes(broken))
    assert read(tmp_path)[1] == []
    _, problems = read(tmp_path, data=Data(min_side=32, verify_pixels=True))
    assert only(problems, "truncated_picture").file == "photo_view_07.png"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("empty_prompt", b" \n\t"),
        ("empty_prompt", b""),
        ("prompt_not_utf8", "photo of a m\xe4dchen".encode("latin-1")),
        ("malformed_placeholder", b"photo of <Person> laughing"),
        ("malformed_placeholder", b"photo of <person:ann> laughing"),
        ("prompt_too_long", b"red hair " * 4000),
    ],
)
def test_bad_prompt_is_named_and_its_view_skipped(tmp_path, kind, content):
    folder = write_state(tmp_path, 1)
    (folder / "photo_view_02.txt").write_bytes(content)
    (state,), problems = read(tmp_path)
    assert only(problems, kind).file == "photo_view_02.txt"
    assert len(state.views) == 3


def test_prompt_with_byte_order_mark_and_line_breaks_is_read_as_one_line(tmp_path):
    folder = write_state(tmp_path, 1)
    (folder / "photo_view_02.txt").write_bytes(b"\xef\xbb\xbfphoto of a man with a red beard,\r\n asleep\n")
    (state,), problems = read(tmp_path)
    assert problems == []
    assert state.views[-1].prompt == "photo of a man with a red beard, asleep"


def test_missing_and_orphan_prompt(tmp_path):
    folder = write_state(tmp_path, 1)
    (folder / "photo_view_02.txt").rename(folder / "photo_view_05.txt")
    (state,), problems = read(tmp_path)
    assert only(problems, "missing_prompt").file == "photo_view_02.png"
    assert only(problems, "orphan_prompt").file == "photo_view_05.txt"
    assert len(state.views) == 3


def test_wrong_names_and_stray_files(tmp_path):
    folder = write_state(tmp_path, 1)
    (folder / "photo-03.png").write_bytes(PNG)
    (folder / "photo_view_09.PNG").write_bytes(PNG)
    (folder / "notes.md").write_text("x")
    (tmp_path / "person_5").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    states, problems = read(tmp_path)
    assert len(states) == 1
    assert {(p.kind, p.file) for p in problems} == {
        ("wrong_file_name", "photo-03.png"),
        ("wrong_file_name", "photo_view_09.PNG"),
        ("stray_file", "notes.md"),
        ("wrong_folder_name", "person_5"),
        ("stray_file", "readme.txt"),
    }


def test_file_name_that_is_not_utf8_is_reported_printably(tmp_path):
    write_state(tmp_path, 1)
    with open(os.fsencode(tmp_path / "seed_1") + b"/photo\xff_view_03.png", "wb") as file:
        file.write(PNG)
    _, problems = read(tmp_path)
    file = only(problems, "wrong_file_name").file
    assert file.encode().decode() == file and file.endswith("_view_03.png")


def test_state_in_two_bases_keeps_the_first_and_names_both(tmp_path):
    for base in "12":
        write_state(tmp_path / base, 5)
    states, problems = read(tmp_path / "1", tmp_path / "2")
    assert [s.base for s in states] == [1]
    problem = only(problems, "duplicate_state")
    assert str(tmp_path / "1" / "seed_5") in problem.detail
    assert str(tmp_path / "2" / "seed_5") in problem.detail


def test_view_in_two_files_keeps_one(tmp_path):
    folder = write_state(tmp_path, 1)
    write_view(folder, "photo_view_1")
    (state,), problems = read(tmp_path)
    assert only(problems, "duplicate_view").file == "photo_view_1.png"
    assert [v.image.name for v in state.in_domain("photo")] == ["photo_view_01.png", "photo_view_02.png"]


def test_state_with_too_few_views_is_left_out_and_says_why(tmp_path):
    write_view(tmp_path / "seed_1", "photo_view_01")
    write_view(tmp_path / "seed_1", "photo_view_02", picture=PNG[:100])
    (tmp_path / "seed_2").mkdir()
    states, problems = read(tmp_path)
    assert states == []
    details = {p.state_id: p.detail for p in problems if p.kind == "too_few_views"}
    assert "1 usable views" in details["seed_1"]
    assert "photo_view_02.png (truncated_picture)" in details["seed_1"]
    assert "0 usable views" in details["seed_2"]


def test_links_out_of_the_base_are_refused_links_within_are_read(tmp_path):
    base, outside = tmp_path / "1", tmp_path / "outside"
    folder, other = write_state(base, 1), write_state(outside, 2)
    (folder / "photo_view_03.png").symlink_to(other / "photo_view_01.png")
    (folder / "photo_view_03.txt").write_text("photo of a man with a red beard, asleep")
    (folder / "photo_view_04.png").symlink_to(folder / "photo_view_01.png")
    (folder / "photo_view_04.txt").write_text("photo of a man with a red beard, running")
    (base / "seed_2").symlink_to(other)
    (state,), problems = read(base)
    assert {(p.kind, p.state_id, p.file) for p in problems} == {
        ("outside_base", "seed_1", "photo_view_03.png"),
        ("outside_base", "seed_2", ""),
    }
    assert "photo_view_04.png" in {v.image.name for v in state.views}


def test_dangling_link_and_refused_file_are_unreadable_not_fatal(tmp_path, monkeypatch):
    folder = write_state(tmp_path, 1)
    (folder / "photo_view_03.png").symlink_to(folder / "nowhere")
    (folder / "photo_view_03.txt").write_text("x")
    check = folder_module.picture_check.check

    def refuse(path: str, verify: bool):
        if path.endswith("comic_view_01.png"):
            raise PermissionError(13, "Permission denied")
        return check(path, verify)

    monkeypatch.setattr(folder_module.picture_check, "check", refuse)
    (state,), problems = read(tmp_path)
    assert {p.file for p in problems if p.kind == "unreadable"} == {"photo_view_03.png", "comic_view_01.png"}
    assert len(state.views) == 3


@pytest.mark.timeout(20)
def test_pipes_and_folders_that_pose_as_files_do_not_hang(tmp_path):
    folder = write_state(tmp_path, 1)
    os.mkfifo(folder / "photo_view_09.png")
    (folder / "photo_view_10.png").mkdir()
    for number, make in ((11, os.mkfifo), (12, os.mkdir)):
        (folder / f"photo_view_{number}.png").write_bytes(PNG)
        make(folder / f"photo_view_{number}.txt")
    _, problems = read(tmp_path)
    kinds = {p.file: p.kind for p in problems if p.kind != "missing_prompt"}
    assert kinds == {
        "photo_view_09.png": "not_png",
        "photo_view_10.png": "not_png",
        "photo_view_11.txt": "empty_prompt",
        "photo_view_12.txt": "unreadable",
    }


def test_missing_and_empty_base_do_not_hide_the_other(tmp_path):
    write_state(tmp_path / "3", 1)
    (tmp_path / "2").mkdir()
    states, problems = read(tmp_path / "1", tmp_path / "2", tmp_path / "3")
    assert len(states) == 1
    assert [(p.kind, p.base) for p in problems] == [("base_missing", 1), ("base_empty", 2)]


def test_prompts_that_cannot_be_separated_are_flagged_and_stay_usable(tmp_path):
    for i, text in enumerate(("sunset over hills", "a blue car"), 1):
        write_view(tmp_path / "seed_1", f"photo_view_{i}", text)
        write_view(tmp_path / "seed_2", f"photo_view_{i}", "photo of a man")
    states, problems = read(tmp_path)
    assert len(states) == 2
    assert [(p.kind, p.state_id) for p in problems] == [("no_description", "seed_1"), ("single_prompt", "seed_2")]
    assert {KINDS[p.kind].severity for p in problems} == {"warning"}


def test_scan_reads_ahead_only_a_little(tmp_path):
    for number in range(150):
        (tmp_path / f"seed_{number}").mkdir()
    stream = scan({1: tmp_path}, DATA)
    next(stream)
    write_state(tmp_path, 149)  # read only when its turn comes
    assert [f.state.state_id for f in stream if f.state] == ["seed_149"]

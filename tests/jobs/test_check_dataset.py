import json
import re

import pytest
from PIL import Image

from harald import settings
from harald.data.manifest import load_states
from harald.errors import DatasetError
from harald.jobs import check_dataset
from harald.runtime import Runtime
from tests.data.folders import PNG, png, write_state, write_view

CONFIG = settings.resolve("tiny")


def damaged(root):
    """Every kind of problem at once, next to healthy states; returns what must be reported."""
    one, two = root / "dataset/1", root / "dataset/2"
    write_state(one, 1)
    write_state(two, 2)
    write_state(two, 1)  # twice
    state = write_state(one, 3)
    write_view(state, "photo_view_10", picture=PNG[: len(PNG) // 2])
    write_view(state, "photo_view_11", picture=b"\xff\xd8\xff\xe0" + PNG)
    write_view(state, "photo_view_12", picture=png(16, 16))
    write_view(state, "photo_view_13", picture=png(80, 64))
    write_view(state, "photo_view_1")
    (state / "photo_view_14.png").write_bytes(PNG)
    for number, content in {15: b"", 16: b"\xe4\xf6", 17: b"x" * 20_000, 18: b"a <Person>"}.items():
        write_view(state, f"photo_view_{number}")
        (state / f"photo_view_{number}.txt").write_bytes(content)
    (state / "photo_view_19.txt").write_text("nobody")
    (state / "photo 20.png").write_bytes(PNG)
    (state / "notes.md").write_text("x")
    (state / "photo_view_21.png").symlink_to(state / "nowhere")
    (state / "photo_view_21.txt").write_text("x")
    (root / "outside.png").write_bytes(PNG)
    (state / "photo_view_22.png").symlink_to(root / "outside.png")
    (state / "photo_view_22.txt").write_text("x")
    header = bytearray(PNG)
    write_view(state, "photo_view_23", picture=_with_size(header, 60_000, 60_000))
    (one / "folder").mkdir()
    write_view(one / "seed_4", "photo_view_1")
    for i, text in enumerate(("sunset over hills", "a blue car"), 1):
        write_view(one / "seed_5", f"photo_view_{i}", text)
        write_view(one / "seed_6", f"photo_view_{i}", "photo of a man")
    (root / "dataset/3").mkdir()
    return {
        ("duplicate_state", 2, "seed_1", ""),
        ("truncated_picture", 1, "seed_3", "photo_view_10.png"),
        ("not_png", 1, "seed_3", "photo_view_11.png"),
        ("too_small", 1, "seed_3", "photo_view_12.png"),
        ("odd_size", 1, "seed_3", "photo_view_13.png"),
        ("duplicate_view", 1, "seed_3", "photo_view_1.png"),
        ("missing_prompt", 1, "seed_3", "photo_view_14.png"),
        ("empty_prompt", 1, "seed_3", "photo_view_15.txt"),
        ("prompt_not_utf8", 1, "seed_3", "photo_view_16.txt"),
        ("prompt_too_long", 1, "seed_3", "photo_view_17.txt"),
        ("malformed_placeholder", 1, "seed_3", "photo_view_18.txt"),
        ("orphan_prompt", 1, "seed_3", "photo_view_19.txt"),
        ("wrong_file_name", 1, "seed_3", "photo 20.png"),
        ("stray_file", 1, "seed_3", "notes.md"),
        ("unreadable", 1, "seed_3", "photo_view_21.png"),
        ("outside_base", 1, "seed_3", "photo_view_22.png"),
        ("too_large", 1, "seed_3", "photo_view_23.png"),
        ("wrong_folder_name", 1, "", "folder"),
        ("too_few_views", 1, "seed_4", ""),
        ("no_description", 1, "seed_5", ""),
        ("single_prompt", 1, "seed_6", ""),
        ("base_empty", 3, "", ""),
        ("base_missing", 4, "", ""),
    }


def _with_size(data, width, height):
    import struct
    import zlib

    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def runtime_of(root, *bases):
    local = Runtime.local(root)
    return Runtime(root, {n: root / f"dataset/{n}" for n in bases or local.datasets}, local.output, local.hf_cache)


def test_every_problem_is_found_in_one_run_and_the_rest_is_usable(tmp_path):
    expected = damaged(tmp_path)
    runtime = runtime_of(tmp_path, 1, 2, 3, 4)
    result = check_dataset.run(runtime, CONFIG, "all")
    folder = tmp_path / "output/check_dataset/all"
    listed = json.loads((folder / "problems.json").read_text())
    assert {(p["kind"], p["base"], p["state_id"], p["file"]) for p in listed["problems"]} == expected
    assert len(listed["problems"]) == len(expected)
    assert {kind for kind, *_ in expected} == set(check_dataset.KINDS)  # no kind without a case here
    assert all(p["fix"] and p["severity"] for p in listed["problems"])
    assert result["problems"] == listed["summary"] == {kind: 1 for kind, *_ in sorted(expected)}
    states = load_states(folder / "manifest.parquet", runtime.datasets)
    assert [s.state_id for s in states] == ["seed_1", "seed_3", "seed_5", "seed_6", "seed_2"]
    assert (result["states"], result["views"]) == (5, sum(len(s.views) for s in states))
    assert "photo_view_13.png" in {v.image.name for v in states[1].views}
    for state in states:
        for view in state.views:
            assert Image.open(view.image).size == (view.width, view.height)
    report = (folder / "report.html").read_text()
    for kind, _, _, file in expected:
        assert f'id="{kind}"' in report
        assert file in report


def test_nothing_usable_fails_after_the_report_is_written(tmp_path):
    write_view(tmp_path / "dataset/1/seed_1", "photo_view_1")
    with pytest.raises(DatasetError, match=r"dataset/1[\s\S]*too_few_views"):
        check_dataset.run(runtime_of(tmp_path), CONFIG, "none")
    folder = tmp_path / "output/check_dataset/none"
    assert json.loads((folder / "problems.json").read_text())["states"] == 0
    assert load_states(folder / "manifest.parquet", {}) == []
    assert "Too few usable views" in (folder / "report.html").read_text()


def test_healthy_set_has_no_problems_and_shows_its_state_free_prompts(tmp_path):
    for number in range(30):
        write_state(tmp_path / "dataset/1", number)
    result = check_dataset.run(runtime_of(tmp_path), CONFIG, "ok")
    assert (result["states"], result["views"], result["problems"]) == (30, 120, {})
    report = (tmp_path / "output/check_dataset/ok/report.html").read_text()
    assert report.count("data:image/png") == 24 * 4
    assert "photo of &lt;person&gt;, " in report
    check_dataset.run(runtime_of(tmp_path), CONFIG, "ok")
    assert (tmp_path / "output/check_dataset/ok/report.html").read_text() == report


def test_hostile_names_and_prompts_cannot_run_in_the_report(tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    folder = write_state(tmp_path / "dataset/1", 1)
    write_view(folder, f"{evil}_view_1", f"photo of a man with a red beard, {evil}")
    (folder / f"{evil}.md").write_text("x")
    check_dataset.run(runtime_of(tmp_path), CONFIG, "evil")
    report = (tmp_path / "output/check_dataset/evil/report.html").read_text()
    assert "onerror" in report
    assert not re.search(r"<img src=x|<script|https?://", report)


def test_picture_whose_middle_is_damaged_is_said_so_in_the_sheet(tmp_path):
    folder = write_state(tmp_path / "dataset/1", 1)
    data = bytearray(PNG)
    data[len(PNG) // 2] ^= 0xFF
    write_view(folder, "comic_view_01", picture=bytes(data))
    check_dataset.run(runtime_of(tmp_path), CONFIG, "x")
    assert "comic_view_01.png cannot be read" in (tmp_path / "output/check_dataset/x/report.html").read_text()

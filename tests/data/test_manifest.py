import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harald.config import Data
from harald.data.manifest import SCHEMA, load_states, split_of, write_manifest
from harald.data.scan import scan
from harald.errors import DatasetError
from tests.data.folders import memory_state, write_state


def scanned(datasets):
    return [found.state for found in scan(datasets, Data(min_side=32)) if found.state]


def test_states_survive_the_manifest_unchanged(tmp_path):
    datasets = {n: tmp_path / str(n) for n in (1, 2)}
    for base, number in ((1, 10), (1, 9), (2, 3)):
        write_state(datasets[base], number)
    states = scanned(datasets)
    assert write_manifest(tmp_path / "m.parquet", iter(states)) == (3, 12)
    assert load_states(tmp_path / "m.parquet", datasets) == states


def test_states_come_back_sorted_whatever_the_order_of_writing(tmp_path):
    states = [memory_state(10, 1, photo=2), memory_state(2, 2, photo=2), memory_state(9, 1, photo=2)]
    write_manifest(tmp_path / "m.parquet", states)
    loaded = load_states(tmp_path / "m.parquet", {1: tmp_path, 2: tmp_path})
    assert [(s.base, s.state_id) for s in loaded] == [(1, "seed_9"), (1, "seed_10"), (2, "seed_2")]


def test_manifest_moves_to_another_machine(tmp_path):
    write_state(tmp_path / "here", 1)
    write_manifest(tmp_path / "m.parquet", scanned({1: tmp_path / "here"}))
    shutil.move(tmp_path / "here", tmp_path / "there")
    (state,) = load_states(tmp_path / "m.parquet", {1: tmp_path / "there"})
    assert all(view.image.is_file() for view in state.views)
    assert str(tmp_path).encode() not in (tmp_path / "m.parquet").read_bytes()


def test_same_states_give_the_same_bytes(tmp_path):
    states = [memory_state(i, photo=3) for i in range(600)]
    for name in "ab":
        write_manifest(tmp_path / name, states)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_writing_takes_states_as_they_come(tmp_path):
    write_manifest(tmp_path / "m", (memory_state(i, photo=1) for i in range(2000)))
    assert pq.ParquetFile(tmp_path / "m").num_row_groups > 5


def test_failure_while_writing_leaves_no_file(tmp_path):
    def stream():
        yield memory_state(1, photo=2)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_manifest(tmp_path / "m.parquet", stream())
    assert os.listdir(tmp_path) == []


def test_empty_manifest_is_readable(tmp_path):
    assert write_manifest(tmp_path / "m", []) == (0, 0)
    assert load_states(tmp_path / "m", {}) == []


def _foreign(path):
    pq.write_table(pa.table({"base": [1]}), path)


def _other_version(path):
    pq.write_table(pa.Table.from_pylist([], SCHEMA.with_metadata({b"harald.manifest": b"99"})), path)


def _evil(path):
    row = {
        name: "../../etc" if name == "image" else ("seed_1" if name == "state_id" else None) for name in SCHEMA.names
    }
    pq.write_table(pa.Table.from_pylist([{**row, "base": 1}], SCHEMA), path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no manifest"),
        (lambda path: path.write_bytes(b"hello"), "is not a manifest"),
        (_foreign, "no manifest of version 1"),
        (_other_version, "99"),
        (_evil, "outside its base folder"),
        (lambda path: write_manifest(path, [memory_state(1, base=4, photo=2)]), "base folder 4"),
    ],
)
def test_unusable_manifest_is_refused_with_a_reason(tmp_path, make, says):
    make(tmp_path / "m.parquet")
    with pytest.raises(DatasetError, match=says) as error:
        load_states(tmp_path / "m.parquet", {1: tmp_path})
    assert "fix:" in str(error.value)


def test_split_has_the_asked_share_and_does_not_move():
    ids = [f"seed_{i}" for i in range(20_000)]
    splits = {i: split_of(i, Data(validation_share=0.1, held_out_share=0.1)) for i in ids}
    for name in ("validation", "held_out"):
        aside = {i for i in ids if splits[i] == name}
        assert 0.09 < len(aside) / len(ids) < 0.11
        larger = Data(validation_share=0.2, held_out_share=0.2)
        assert aside <= {i for i in ids if split_of(i, larger) == name}  # a larger share only adds
    assert split_of("seed_19456895", Data()) == "train"  # pinned: a change moves states between splits
    aside = [i for i in ids[:60] if splits[i] == "validation"]
    assert aside == [f"seed_{n}" for n in (0, 31, 37, 46, 52, 53, 55)]

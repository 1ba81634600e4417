"""The latent cache: shared between runs, verified, mended, and never served for a changed picture."""

import dataclasses
import os
import pickle
import shutil
import time

import pytest
import torch
from safetensors.torch import save

from harald import config
from harald.base.qwen_image import QwenImage
from harald.data.images import load_picture, target_tensor
from harald.data.index import states_for
from harald.data.seen import SETTLED
from harald.errors import DatasetError
from harald.jobs import encoding, prepare, run_part
from harald.jobs.encoding import open_cache
from harald.runtime import Runtime
from harald.training import batch
from harald.training.batch import Batches
from tests import models
from tests.states import write_dataset, write_state

SHAPE, MU = (16, 64), 0.5
OLD = time.time_ns() - 100 * SETTLED


def tiny(latents: str = "one", **data: int) -> config.Config:
    c = config.tiny()
    return dataclasses.replace(
        c,
        data=dataclasses.replace(c.data, **data),
        prepare=config.Prepare(pictures_per_shard=4, containers=2),
        train=dataclasses.replace(c.train, latents=latents),
    )


def pictures(runtime) -> list:
    return [view.image for state in states_for(runtime, tiny()) for view in state.views]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three states of four pictures each that nobody has touched for a while, and the run "one" of prepare."""
    runtime = write_dataset(tmp_path_factory.mktemp("root"), states=3, views=2)
    for image in pictures(runtime):
        os.utime(image, ns=(OLD, OLD))
    shutil.copytree(models.cache(), runtime.hf_cache, symlinks=True)
    assert prepare.run(runtime, tiny(), "one")["encoded"] == 12
    return runtime


@pytest.fixture
def prepared(done, tmp_path):
    """A copy of it all."""
    shutil.copytree(done.root, tmp_path / "root", symlinks=True)
    return Runtime.local(tmp_path / "root")


@pytest.fixture
def runtime(prepared):
    """The same before prepare."""
    shutil.rmtree(prepared.output)
    return prepared


def cache_of(runtime, c=None, images=()):
    return open_cache(runtime, c or tiny(), images)


def stored(runtime) -> dict[str, tuple]:
    """Name of every shard -> its bytes, and what tells whether it was written again."""
    files = (runtime.output / "latents").glob("*/*.safetensors")
    return {f"{p.parent.name}/{p.name}": (p.read_bytes(), p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def test_cached_latents_are_what_training_computes(prepared):
    cache, size = cache_of(prepared, images=pictures(prepared)), tiny().data.image_size
    for image in pictures(prepared):
        computed = models.base().encode_images(target_tensor(load_picture(image), size)[None])[0]
        assert torch.equal(cache.get(image), computed)


def test_only_the_vae_is_loaded(runtime, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the whole base model was loaded")

    monkeypatch.setattr(QwenImage, "load", refuse)
    for folder in runtime.hf_cache.rglob("transformer"):  # nor can it be: its file holds no tensor
        (weights,) = folder.glob("*.safetensors")
        weights.unlink()
        weights.write_bytes(save({}))
    encoding._vae.cache_clear()
    assert prepare.run(runtime, tiny(), "one")["encoded"] == 12


def test_second_run_encodes_only_new_pictures_and_shares_the_rest(prepared):
    before = stored(prepared)
    write_state(prepared.datasets[1], 9999)
    facts = prepare.run(prepared, tiny(), "two")
    assert (facts["encoded"], facts["pictures"]) == (6, 18)
    assert before.items() <= stored(prepared).items()
    assert prepare.run(prepared, tiny(), "one")["encoded"] == 0
    assert all(cache_of(prepared, tiny(latents=run)).get(image) is not None
               for run in ("one", "two") for image in pictures(prepared))  # fmt: skip


def test_pictures_with_the_same_content_are_encoded_once(runtime):
    state = runtime.datasets[1] / "seed_8888"
    shutil.copytree(pictures(runtime)[0].parent, state)
    assert prepare.run(runtime, tiny(), "one")["encoded"] == 12
    cache = cache_of(runtime, images=pictures(runtime))
    assert torch.equal(
        cache.get(state / "photo_view_01.png"), cache.get(pictures(runtime)[0].parent / "photo_view_01.png")
    )


def test_unchanged_pictures_are_hashed_once_in_a_run(prepared, monkeypatch):
    looked = []
    monkeypatch.setattr(prepare, "look", lambda image: looked.append(image) or encoding.look(image))
    os.utime(pictures(prepared)[3], ns=(OLD, OLD + 1))
    prepare.run(prepared, tiny(), "one")
    assert looked == [pictures(prepared)[3]]


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (tiny(image_size=32), "size is 64, needed is 32"),
        (dataclasses.replace(tiny(), dtype="bfloat16"), "dtype is 'torch.float32', needed is 'torch.bfloat16'"),
    ],
    ids=["size", "dtype"],
)
def test_cache_of_other_settings_is_refused_by_the_field(prepared, other, says):
    with pytest.raises(DatasetError, match=says):
        cache_of(prepared, other)


def test_caches_of_different_settings_lie_side_by_side(prepared):
    before = stored(prepared)
    smaller = tiny(latents="two", image_size=32)
    prepare.run(prepared, smaller, "two")
    assert before.items() < stored(prepared).items()
    image = pictures(prepared)[0]
    assert cache_of(prepared).get(image).shape[0] == 4 * cache_of(prepared, smaller).get(image).shape[0]


def test_changed_picture_is_never_served_its_old_latents(prepared):
    one, two, three = pictures(prepared)[:3]
    cache = cache_of(prepared)
    cache.get(one)
    content = bytearray(one.read_bytes())
    content[-20] ^= 1  # as many bytes as before
    one.write_bytes(content)
    with pytest.raises(DatasetError, match=f"{one} is not in the latent cache one .new or changed."):
        cache.get(one)
    expected = cache.get(three)
    two.write_bytes(three.read_bytes())  # a picture that is known by its content
    assert torch.equal(cache.get(two), expected)


def test_touched_picture_is_still_served(prepared):
    image = pictures(prepared)[0]
    before = cache_of(prepared).get(image)
    os.utime(image)
    assert torch.equal(cache_of(prepared).get(image), before)


def test_picture_that_changes_while_prepare_runs_is_not_encoded_under_its_old_hash(runtime):
    image, neighbour = pictures(runtime)[:2]

    def late(name, items):
        if name == "encode_shards":
            image.write_bytes(neighbour.read_bytes())
        return [run_part(name, runtime, item) for item in items]

    with pytest.raises(DatasetError, match=rf"{image.name}: it changed while prepare ran"):
        prepare.run(dataclasses.replace(runtime, remote_map=late), tiny(), "one")
    assert prepare.run(runtime, tiny(), "one")["encoded"] == 0  # its content is its neighbour's now


def test_training_with_a_cache_reads_references_and_no_target(prepared, monkeypatch):
    states = states_for(prepared, tiny())
    batches = Batches(
        tiny(),
        states,
        SHAPE,
        MU,
        cache_of(prepared, images=pictures(prepared)),
        models.encoder().chats,
        models.base().tokenize,
    )
    read, hashed = [], []
    monkeypatch.setattr(batch, "load_picture", lambda path: read.append(path) or load_picture(path))
    monkeypatch.setattr("harald.data.latents.look", hashed.append)
    for step in range(4):
        drawn = batches[step]
        assert sorted(read) == sorted(view.image for pair in drawn.pairs for view in pair.references)
        assert drawn.targets.pixels is None and drawn.targets.latents is not None
        read.clear()
    assert not hashed


def test_open_cache_travels_to_a_worker_process(prepared):
    cache, image = cache_of(prepared), pictures(prepared)[0]
    expected = cache.get(image)
    assert torch.equal(pickle.loads(pickle.dumps(cache)).get(image), expected)  # noqa: S301


def test_new_picture_is_named_before_training_starts(prepared):
    write_state(prepared.datasets[1], 9999)
    with pytest.raises(DatasetError, match=r"the latent cache one lacks 6 of 18 pictures, the first is .*seed_9999"):
        cache_of(prepared, images=pictures(prepared))


def flip(one, _):
    content = one.read_bytes()
    one.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(one, _):
    one.write_bytes(one.read_bytes()[:-1])


def swap(one, other):
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


def lose(one, _):
    one.unlink()


@pytest.mark.parametrize(("damage", "count"), [(flip, 1), (cut, 1), (swap, 2), (lose, 1)])
def test_damaged_shards_are_refused_in_training_and_mended_by_prepare_alone(prepared, damage, count):
    whole = stored(prepared)
    broken = sorted(whole)[:count]
    damage(*(prepared.output / "latents" / name for name in sorted(whole)[:2]))
    cache = cache_of(prepared)
    with pytest.raises(DatasetError, match=rf"({'|'.join(broken)}) cannot be used[\s\S]*run prepare again"):
        for image in pictures(prepared):
            cache.get(image)
    assert prepare.run(prepared, tiny(), "one")["encoded"] == 4 * count
    after = stored(prepared)
    assert {name: after[name][0] for name in after} == {name: whole[name][0] for name in whole}
    assert {name for name in whole if after[name][1:] != whole[name][1:]} == set(broken)


def test_pictures_that_cannot_be_read_are_named_and_the_others_are_in_the_cache(runtime):
    bad = pictures(runtime)[4]
    content = bytearray(bad.read_bytes())
    content[60:80] = bytes(20)  # its ends stay whole
    bad.write_bytes(content)
    with pytest.raises(
        DatasetError, match=f"1 of 12 pictures are not in the latent cache:\n    .*{bad.name}.* cannot be read"
    ):
        prepare.run(runtime, tiny(), "one")
    good = [image for image in pictures(runtime) if image != bad]
    cache = cache_of(runtime, images=good)
    assert all(cache.get(image) is not None for image in good)
    with pytest.raises(DatasetError, match=bad.name):
        cache_of(runtime, images=pictures(runtime))


def test_index_is_made_of_what_is_there_and_not_of_what_parts_say(runtime):
    def claims(name, items):
        return [run_part(name, runtime, items[0])] if name == "cache_key" else [(0.0, {}) for _ in items]

    lying = dataclasses.replace(runtime, remote_map=claims)
    with pytest.raises(DatasetError, match="12 of 12 pictures are not in the latent cache"):
        prepare.run(lying, tiny(), "one")
    assert prepare.run(runtime, tiny(), "one")["encoded"] == 12


def test_shards_of_other_machines_are_seen_after_a_reload(runtime, tmp_path):
    """A container sees what others have committed only after reload."""
    there = dataclasses.replace(runtime, output=tmp_path / "other machine")
    sizes = []

    def elsewhere(name, items):
        sizes.append(len(items))
        return [run_part(name, there, item) for item in items]

    def reload():
        shutil.copytree(there.output, runtime.output, dirs_exist_ok=True)

    facts = prepare.run(dataclasses.replace(runtime, remote_map=elsewhere, reload=reload), tiny(), "one")
    assert facts["pictures"] == 12
    assert sizes == [1, tiny().prepare.containers]  # three shards, two containers


def test_leftovers_of_killed_parts_go_when_nobody_can_be_writing_them(prepared):
    store = next((prepared.output / "latents").iterdir())
    old, young = store / ".a.safetensors.1.tmp", store / ".a.safetensors.2.tmp"
    for path in (old, young):
        path.write_bytes(b"half")
    long_ago = time.time() - 2 * prepare.LEFTOVER
    os.utime(old, (long_ago, long_ago))
    prepare.run(prepared, tiny(), "one")
    assert young.exists() and not old.exists()


def test_damaged_index_is_refused_in_training_and_replaced_by_prepare(prepared):
    index = prepared.output / "prepare" / "one" / "pictures.parquet"
    index.write_bytes(index.read_bytes()[:-9])
    with pytest.raises(DatasetError, match="not an index of latents"):
        cache_of(prepared)
    assert prepare.run(prepared, tiny(), "one")["encoded"] == 0
    assert cache_of(prepared, images=pictures(prepared))

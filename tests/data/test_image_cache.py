import json
import os
import shutil
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from vicinal.data import load
from vicinal.data.formats import image_cache, stored_images
from vicinal.errors import UserError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Cache data sets of any number of images; return the folder of the cache."""
    monkeypatch.setattr("vicinal.data.formats.image_data_set._WORTH_CACHING", 1)
    monkeypatch.setenv("VICINAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pets(tmp_path):
    """Write 12 images of two classes and of different sizes; return the source."""
    chance = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for k in range(6):
            pixels = chance.integers(0, 256, (20 + k, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / label / f"{k}.png")
    return f"folder:{tmp_path}/pets?size=16"


@pytest.fixture
def decodes(monkeypatch):
    """Count the images that are decoded."""
    names = []

    def counted(data, options, *, where, changes=None, decode=stored_images.decode):
        names.append(where)
        return decode(data, options, where=where, changes=changes)

    monkeypatch.setattr(stored_images, "decode", counted)
    return names


def content(data):
    """Return all that a study sees of a data set, for a comparison."""
    notes = [note for note in data.notes if "cache" not in note.text]
    splits = {
        name: (split.inputs.tolist(), split.targets.tolist(), split.skipped)
        for name, split in data.splits.items()
    }
    return data.classes, splits, notes, data.preparation


def test_other_files_in_the_folder_of_the_cache_are_never_deleted(cache, pets, monkeypatch):
    monkeypatch.setattr("vicinal.data.formats.image_cache.CACHE_BYTES", 1)
    cache.mkdir(exist_ok=True)
    own = [cache / "thesis.tar", cache / f"{'a' * 32}.txt", cache / "notes.npy"]
    for path in own:
        path.write_bytes(bytes(100))
        os.utime(path, (0, 0))
    old = cache / f"{'0' * 32}.npy"
    old.write_bytes(bytes(100))
    os.utime(old, (0, 0))
    load(pets)
    assert all(path.exists() for path in own)
    assert not old.exists()


def uncached(monkeypatch, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setenv("VICINAL_CACHE", "")
        return content(load(*arguments, **options))


def test_the_second_start_decodes_one_image_and_gets_the_same_data(
    cache, pets, decodes, monkeypatch
):
    options = {"test_fraction": 0.34}
    expected = uncached(monkeypatch, pets, **options)
    assert not cache.exists()
    decodes.clear()
    for count in (1 + 12, 1, 1):  # the first image is decoded for its shape
        data = load(pets, **options)
        assert content(data) == expected
        assert len(decodes) == count
        decodes.clear()
        texts = [note.text for note in data.notes]
        assert "12 of 12 images were resized and cropped to 16x16" in texts
        assert f"resized images are cached in {cache}; $VICINAL_CACHE names another" in texts
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]
    # Other splits of the same images use the same entry.
    other = {"fold": (1, 3), "seed": 4, "validation_fraction": 0.3}
    assert content(load(pets, **other)) == uncached(monkeypatch, pets, **other)
    assert len(list(cache.iterdir())) == 2


def test_skipped_images_are_remembered(cache, pets, decodes, tmp_path, monkeypatch):
    (tmp_path / "pets" / "cat" / "2.png").write_bytes(b"no image")
    (tmp_path / "pets" / "dog" / "5.png").write_bytes(b"\x89PNG")
    expected = uncached(monkeypatch, pets, skip_bad=True, test_fraction=0.5)
    assert sum(len(skipped) for _, _, skipped in expected[1].values()) == 2
    for _ in range(2):
        assert content(load(pets, skip_bad=True, test_fraction=0.5)) == expected
        with pytest.raises(UserError, match=r"2.png: the image cannot be decoded"):
            load(pets, test_fraction=0.5)
    assert len(list(cache.iterdir())) == 2


def test_splits_in_folders_of_their_own_are_cached_one_by_one(
    cache, pets, tmp_path, decodes, monkeypatch
):
    (tmp_path / "two").mkdir()
    (tmp_path / "pets").rename(tmp_path / "two" / "train")
    shutil.copytree(tmp_path / "two" / "train", tmp_path / "two" / "test")
    source = f"folder:{tmp_path}/two?size=16"
    expected = uncached(monkeypatch, source)
    assert content(load(source)) == content(load(source)) == expected
    assert len(list(cache.iterdir())) == 4
    assert sum("cache" in note.text for note in load(source).notes) == 1


@pytest.mark.parametrize("change", ["content", "time", "name", "size", "channels"])
def test_what_changes_the_images_decodes_them_again(cache, pets, tmp_path, change, monkeypatch):
    before = content(load(pets, test_fraction=0.34))
    path = tmp_path / "pets" / "cat" / "3.png"
    if change == "content":  # as many bytes, and the same time of change
        stat = path.stat()
        pixels = np.asarray(Image.open(path)).copy()
        path.write_bytes((tmp_path / "pets" / "dog" / "3.png").read_bytes()[: stat.st_size])
        Image.fromarray(255 - pixels).save(path)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif change == "time":
        os.utime(path, (1, 1))
    elif change == "name":
        path.rename(path.with_name("3b.png"))
    else:
        pets = pets.replace("size=16", "size=15") if change == "size" else f"{pets}&channels=1"
    after = content(load(pets, test_fraction=0.34))
    assert after == uncached(monkeypatch, pets, test_fraction=0.34)
    assert (after == before) == (change in {"time", "name"})
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", ["byte", "short", "long json", "json", "kept", "empty", "lost"])
def test_a_damaged_entry_is_written_again(cache, pets, decodes, damage):
    expected = content(load(pets, test_fraction=0.34))
    (pixels,), (rest,) = cache.glob("*.npy"), cache.glob("*.json")
    whole = pixels.read_bytes()
    if damage == "byte":
        pixels.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "short":
        pixels.write_bytes(whole[:-5])
    elif damage == "empty":
        pixels.write_bytes(b"")
    elif damage == "long json":
        rest.write_text(rest.read_text() + "}")
    elif damage == "json":
        rest.write_text("[]")
    elif damage == "kept":
        checksum, about = json.loads(rest.read_text())
        rest.write_text(json.dumps([checksum, about | {"kept": about["kept"][1:]}]))
    else:
        rest.unlink()
    for count in (13, 1):
        decodes.clear()
        assert content(load(pets, test_fraction=0.34)) == expected
        assert len(decodes) == count
    assert pixels.read_bytes() == whole


def test_without_a_place_for_the_cache_a_note_says_so(cache, pets, monkeypatch):
    expected = uncached(monkeypatch, pets, test_fraction=0.34)
    usage = namedtuple("Usage", "free")
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda folder: usage(9))
    data = load(pets, test_fraction=0.34)
    (note,) = [note.text for note in data.notes if "cache" in note.text]
    assert note.startswith(f"resized images cannot be cached in {cache}: the disk is nearly full.")
    assert content(data) == expected
    assert list(cache.iterdir()) == []
    cache.rmdir()
    cache.write_text("a file")
    assert content(load(pets, test_fraction=0.34)) == expected


def test_a_disk_that_fills_up_while_writing_leaves_nothing(cache, pets, monkeypatch):
    def full(file, header):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    data = load(pets, test_fraction=0.34)
    assert any("No space left on device" in note.text for note in data.notes)
    assert list(cache.iterdir()) == []


def test_several_writers_of_an_entry_do_not_disturb_each_other(cache, pets):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: content(load(pets, test_fraction=0.34)), range(16)))
    assert all(one == found[0] for one in found)
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_the_entries_that_were_not_used_for_the_longest_are_deleted(cache, pets, monkeypatch):
    sizes = (16, 8, 12)
    sources = [pets.replace("size=16", f"size={size}") for size in sizes]
    for age, source in enumerate(sources[:2]):
        load(source, test_fraction=0.34)
        for path in cache.iterdir():
            if path.stat().st_mtime > 1e6:
                os.utime(path, (1000 + age, 1000 + age))
    load(sources[0], test_fraction=0.34)  # used again, so the second one is the oldest
    bytes_of = {size: 12 * 3 * size * size for size in sizes}
    monkeypatch.setattr(image_cache, "CACHE_BYTES", bytes_of[16] + bytes_of[12] + 3000)
    load(sources[2], test_fraction=0.34)
    left = sorted(np.load(path).shape[-1] for path in cache.glob("*.npy"))
    assert left == [12, 16]


def test_images_that_do_not_fit_into_memory_or_keep_their_size_are_not_cached(
    cache, pets, tmp_path
):
    data = load(pets, test_fraction=0.34, in_memory=12 * 3 * 16 * 16 - 1)
    assert not isinstance(load(pets, test_fraction=0.34, in_memory=9).test.inputs, torch.Tensor)
    assert isinstance(data.train.inputs, torch.Tensor)
    for path in (tmp_path / "pets").glob("*/*.png"):
        Image.new("RGB", (5, 5)).save(path)
    load(pets.removesuffix("?size=16"), test_fraction=0.34)
    assert not cache.exists()


def test_the_first_of_several_damaged_images_is_named_whatever_the_threads_do(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("vicinal.data.formats.image_data_set._PIECE", 1)  # one image at a time
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "b").mkdir()
    for k in range(40):
        path = tmp_path / "train" / "ab"[k // 20] / f"{k:02d}.png"
        if k in (7, 8, 30):
            path.write_bytes(b"x")
        else:
            Image.new("RGB", (4, 4), (k, 0, 0)).save(path)
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    with pytest.raises(UserError, match=r"train/a/07.png: the image"):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}", skip_bad=True)
    left = [k for k in range(40) if k not in (7, 8, 30)]
    assert data.train.inputs[:, 0, 0, 0].tolist() == left
    assert data.train.targets.tolist() == [k // 20 for k in left]
    assert [sentence.split(":")[0][-6:] for sentence in data.train.skipped] == [
        "07.png",
        "08.png",
        "30.png",
    ]


def test_an_entry_that_others_own_is_used(cache, pets, decodes, monkeypatch):
    load(pets)
    decodes.clear()

    def refused(path):
        raise PermissionError(f"{path} belongs to another user")

    monkeypatch.setattr(os, "utime", refused)
    load(pets)
    assert len(decodes) == 1

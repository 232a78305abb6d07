"""Small folders and files as people have them, each with the right answer known."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from vicinal.data import load
from vicinal.data.formats.images import ImageChanges, ImageOptions, decode
from vicinal.errors import UserError

CASES = Path(__file__).parents[1] / "cases"


def texts(data, *, doubtful=False):
    return [note.text for note in data.notes if note.doubtful >= doubtful]


def everything(data):
    splits = [split.read(range(len(split))).inputs for split in data.splits.values()]
    return torch.cat(splits)


def upright(path):
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_images_are_turned_by_their_exif_orientation_unless_disabled(in_memory):
    spec = f"folder:{CASES / 'exif'}"
    data = load(spec, in_memory=in_memory)
    left, up = (
        np.moveaxis(upright(CASES / "exif" / label / "0.jpg"), 2, 0) for label in ("left", "up")
    )
    read = data.test.read(range(len(data.test))).inputs.numpy()
    assert len(read) == 4
    for image, label in zip(read, data.test.targets.tolist(), strict=True):
        assert np.abs(image.astype(int) - (left, up)[label]).max() <= 3
    assert any("were turned by the orientation" in text for text in texts(data))
    stored = load(f"{spec}?exif=ignore", in_memory=in_memory)
    raw = np.asarray(Image.open(CASES / "exif" / "up" / "0.jpg").convert("RGB"))
    found = stored.test.read([int(stored.test.targets.argmax())]).inputs[0]
    assert np.abs(np.moveaxis(found.numpy(), 0, 2).astype(int) - raw).max() <= 3
    assert not any("turned" in text for text in texts(stored))
    assert (data.preparation["exif"], stored.preparation["exif"]) == ("apply", "ignore")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [None, 8])
def test_every_orientation_is_turned_as_pillow_turns_it(form, size):
    pixels = np.zeros((24, 16, 3), np.uint8)
    pixels[:8, :8] = 255, 0, 0
    pixels[16:, 8:] = 0, 0, 255
    for orientation in range(10):
        out, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(out, form, exif=exif, quality=100)
        found = decode(out.getvalue(), ImageOptions(size=size), where="").astype(int)
        known = ImageOps.exif_transpose(Image.open(io.BytesIO(out.getvalue()))).convert("RGB")
        if size:
            known = ImageOps.fit(known, (size, size), Image.Resampling.BILINEAR)
        assert found.shape == np.asarray(known).shape, orientation
        # The decoder halves before the resizing, so edges may differ a little.
        assert np.abs(found - np.asarray(known)).mean() < 12, orientation


def test_an_image_with_damaged_exif_data_is_not_turned():
    out = io.BytesIO()
    Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(out, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff")
    assert decode(out.getvalue(), where="").shape == (8, 16, 3)


@pytest.mark.parametrize(("option", "ground"), [("", 255), ("?alpha=black", 0)])
def test_transparent_images_are_composed_onto_white_with_a_note(option, ground):
    data = load(f"folder:{CASES / 'alpha'}{option}")
    path = CASES / "alpha" / "disc" / "0.png"
    alpha = np.asarray(Image.open(path))[..., 3:].astype(float) / 255
    known = np.moveaxis(ground * (1 - alpha).repeat(3, 2), 2, 0)
    disc = data.train.inputs[data.train.targets == 0][0].numpy()
    assert np.abs(disc - known).max() <= 1
    color = "black" if option else "white"
    assert any(
        f"20 of 20 images are transparent and were composed onto {color}" in t for t in texts(data)
    )
    assert ("all training inputs are the same" in texts(data)) == bool(option)


def test_transparency_can_be_ignored():
    data = load(f"folder:{CASES / 'alpha'}?alpha=ignore")
    assert int(everything(data).max()) == 0
    assert "all training inputs are the same" in texts(data, doubtful=True)


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA"])
def test_transparency_of_every_mode_is_composed(mode):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (0, 0, 0, 255))
    out, changes = io.BytesIO(), ImageChanges()
    image.convert(mode).save(out, "PNG")
    found = decode(out.getvalue(), where="", changes=changes)
    assert found[2, 1].tolist() == [0, 0, 0]
    assert found.sum() == 15 * 3 * 255
    assert [*changes.counts.values()] == [1]


def test_the_splits_of_a_kaggle_folder_are_not_taken_for_classes():
    with pytest.raises(
        UserError,
        match=r"only folders in them \(test_set has cats, dogs; training_set has cats, dogs\)\. If "
        r"these are splits, pass train=FOLDER&test=FOLDER",
    ):
        load(f"folder:{CASES / 'folders' / 'kaggle'}")
    data = load(f"folder:{CASES / 'folders' / 'kaggle'}?train=training_set&test=test_set")
    assert data.classes == ("cats", "dogs")
    assert (len(data.train), len(data.test)) == (20, 20)
    assert "splits: train from training_set, test from test_set" in texts(data)


def test_nested_splits_are_not_taken_for_classes():
    root = CASES / "folders" / "intel"
    with pytest.raises(
        UserError,
        match=r"only folders in them \(seg_pred has seg_pred; .*train=FOLDER&test=FOLDER",
    ):
        load(f"folder:{root}")
    data = load(f"folder:{root}?train=seg_train/seg_train&test=seg_test/seg_test")
    assert data.classes == ("forest", "sea")
    with pytest.raises(UserError, match=r"'seg_trian'"):
        load(f"folder:{root}?train=seg_trian&test=seg_test")


def test_masks_are_not_taken_for_a_class():
    spec = f"folder:{CASES / 'folders' / 'images_masks'}"
    with pytest.raises(UserError, match=r"images, masks, which look like images and their masks"):
        load(spec)
    assert load(f"{spec}?classes=images,masks").classes == ("images", "masks")


@pytest.mark.parametrize(
    ("name", "skipped"), [("ipynb", ".ipynb_checkpoints (1)"), ("thumbs", "Thumbs.db (1)")]
)
def test_hidden_folders_and_system_files_are_skipped_and_counted(name, skipped):
    data = load(f"folder:{CASES / 'folders' / name}")
    assert len(data.train) + len(data.test) == 20
    assert f"skipped 1 hidden or system files and folders: {skipped}" in texts(data)
    assert "2 classes, one folder each: cat, dog" in texts(data)


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    shutil.copytree(CASES / "folders" / "ipynb", tmp_path / "pets")
    extra = tmp_path / "extra"
    shutil.copytree(CASES / "folders" / "ipynb" / "cat", extra)
    (tmp_path / "pets" / "cat" / "more").symlink_to(extra)
    (extra / "up").symlink_to(tmp_path / "pets")
    (extra / "again").symlink_to(extra)
    data = load(f"folder:{tmp_path / 'pets'}")
    assert len(data.train) + len(data.test) == 30
    assert any("cat (more)" in text for text in texts(data))


@pytest.mark.parametrize(
    ("train", "test", "validation"),
    [
        ("Training", "Testing", "Valid"),
        ("train", "test", "dev"),
        ("training", "test", "validation"),
    ],
)
def test_names_of_splits_are_recognized(tmp_path, train, test, validation):
    for name in (train, test, validation):
        shutil.copytree(CASES / "folders" / "thumbs", tmp_path / name)
    data = load(f"folder:{tmp_path}")
    assert {name: len(split) for name, split in data.splits.items()} == dict.fromkeys(
        ("train", "validation", "test"), 20
    )
    assert f"splits: train from {train}, test from {test}, validation from {validation}" in texts(
        data
    )


def test_a_class_with_only_folders_next_to_others_is_doubtful(tmp_path):
    shutil.copytree(CASES / "folders" / "thumbs", tmp_path / "pets")
    shutil.copytree(CASES / "folders" / "thumbs", tmp_path / "pets" / "archive")
    data = load(f"folder:{tmp_path / 'pets'}")
    assert any("only folders: archive; are they" in text for text in texts(data, doubtful=True))


def test_a_class_whose_name_is_not_utf_8_can_be_read_and_printed(tmp_path):
    shutil.copytree(CASES / "folders" / "thumbs" / "cat", tmp_path / "cat")
    name = os.fsdecode(b"caf\xe9")
    shutil.copytree(CASES / "folders" / "thumbs" / "dog", tmp_path / name)
    data = load(f"folder:{tmp_path}")
    assert data.classes == (r"caf\xe9", "cat")
    assert len(data.train) == 16
    "".join(texts(data)).encode()
    assert load(f"folder:{tmp_path}?classes=cat,caf\\xe9").classes == ("cat", r"caf\xe9")


def jpeg_with_a_warning():
    out = io.BytesIO()
    pixels = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    Image.fromarray(pixels).save(out, "JPEG", quality=100)
    data = out.getvalue()
    return data[:-2] + bytes(9) + data[-2:], data


def test_a_jpeg_about_which_libjpeg_only_warns_is_read_and_counted(tmp_path):
    warned, clean = jpeg_with_a_warning()
    for label in "ab":
        (tmp_path / label).mkdir()
        for k in range(5):
            (tmp_path / label / f"{k}.jpg").write_bytes(clean)
    (tmp_path / "a" / "1.jpg").write_bytes(warned)
    data = load(f"folder:{tmp_path}")
    assert not any(split.skipped for split in data.splits.values())
    known = decode(clean, where="").astype(int)
    assert np.abs(everything(data).permute(0, 2, 3, 1).numpy() - known).max() <= 1
    (doubt,) = [text for text in texts(data, doubtful=True) if "damaged" in text]
    assert doubt.startswith("1 of 10 images were decoded but may be damaged, such as")
    assert "a/1.jpg (Corrupt JPEG data: 5 extraneous bytes" in doubt


def test_notes_on_images_in_files_are_about_the_first_ones(tmp_path):
    data = load(f"folder:{CASES / 'exif'}?size=8", in_memory=0)
    assert "20 of the first 20 images were resized and cropped to 8x8" in (texts(data))
    again = load(f"folder:{CASES / 'exif'}?size=8")
    assert "20 of 20 images were resized and cropped to 8x8" in texts(again)


def test_images_larger_than_max_bytes_raise_an_error_before_they_are_decoded():
    out = io.BytesIO()
    Image.new("RGB", (4000, 4000)).save(out, "PNG")
    with pytest.raises(
        UserError, match=r"at most 1000000 bytes in memory .max_bytes., got 64000000"
    ):
        decode(out.getvalue(), ImageOptions(max_bytes=10**6), where="")


def test_an_incomplete_index_raises_an_error_with_both_counts():
    spec = f"rec:{CASES / 'recs' / 'sh.rec'}"
    with pytest.raises(UserError, match=r"sh\.idx lists 12 of the 30 records\. Delete the index"):
        load(spec)


def test_the_thirty_records_are_read_without_the_index(tmp_path):
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path)
    data = load(f"rec:{tmp_path / 'sh.rec'}")
    assert len(data.train) + len(data.test) == 30


def test_a_folder_of_records_is_read(tmp_path):
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path / "set_train.rec")
    data = load(f"rec:{tmp_path}")
    assert len(data.train) + len(data.test) == 30
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path / "set_val.rec")
    assert [len(split) for split in load(f"rec:{tmp_path}").splits.values()] == [30, 30]
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path / "set_test.rec")
    data = load(f"rec:{tmp_path}")
    assert list(data.splits) == ["train", "validation", "test"]
    assert f"{tmp_path}: read set_train.rec, set_test.rec, set_val.rec" in texts(data)
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path / "other_train.rec")
    with pytest.raises(
        UserError, match=r"expected one record file for train, got other_train\.rec"
    ):
        load(f"rec:{tmp_path}")


def test_records_with_labels_out_of_range_raise_an_error_or_are_skipped(tmp_path):
    shutil.copy(CASES / "recs" / "sh.rec", tmp_path / "sh.rec")
    whole = load(f"rec:{tmp_path / 'sh.rec'},{tmp_path / 'sh.rec'}")
    (tmp_path / "classes.txt").write_text("only\n" * 1)
    spec = f"rec:{tmp_path / 'sh.rec'},{tmp_path / 'sh.rec'}"
    with pytest.raises(UserError, match=r"expected a label of the 1 classes, got \d.*To skip such"):
        load(spec)
    data = load(spec, skip_bad=True)
    assert len(data.train) == int((whole.train.targets == 0).sum())
    assert len(data.train) + len(data.train.skipped) == 30


def test_images_of_a_map_style_data_set_are_turned_and_composed(monkeypatch):
    import sys
    import types

    exif = [Image.open(CASES / "exif" / label / "0.jpg") for label in ("left", "up")]
    clear = [Image.open(CASES / "alpha" / label / "0.png") for label in ("disc", "square")]
    rows = [(image, k % 2) for k, image in enumerate((exif + clear) * 3)]
    monkeypatch.setitem(sys.modules, "somebody", types.SimpleNamespace(data=rows))
    data = load("import:somebody:data", test_fraction=0.5)
    assert any(text.startswith("3 of 12 images were turned") for text in texts(data))
    assert any(text.startswith("6 of 12 images are transparent") for text in texts(data))
    up = np.moveaxis(upright(CASES / "exif" / "up" / "0.jpg"), 2, 0)
    assert any(np.array_equal(image, up) for image in everything(data).numpy())

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vicinal.data import DataSet, Split, load, normalization_of
from vicinal.data.convert import convert
from vicinal.data.formats.recordio import RecordFile
from vicinal.errors import UserError

MXNET = Path(__file__).parent / "mxnet"


def images(channels=3, count=8):
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (count, channels, 6, 5), generator=chance, dtype=torch.uint8)
    targets = torch.arange(count) % 2
    train, test = Split(inputs[:6], targets[:6]), Split(inputs[6:], targets[6:])
    return DataSet(("cat", "dog"), train, test, brightest=255)


def sorted_by_content(split):
    inputs = split.read(range(len(split))).inputs
    return sorted((int(y), x.numpy().tobytes()) for x, y in zip(inputs, split.targets, strict=True))


def same(one, other):
    return all(
        sorted_by_content(one.splits[k]) == sorted_by_content(other.splits[k]) for k in one.splits
    )


FORMS = {
    "records": ("set.rec", "rec:set_train.rec,set_test.rec"),
    "folder": ("set", "folder:set"),
    "npz": ("set.npz", "npz:set.npz"),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_reads_back_the_same(tmp_path, form, channels):
    data = images(channels)
    name, spec = FORMS[form]
    convert(data, tmp_path / name)
    option = f"?channels={channels}" if form != "npz" else ""
    back = load(spec + option, root=tmp_path)
    assert same(data, back)
    assert back.classes == ("cat", "dog")


def test_from_form_to_form_and_back_nothing_is_lost(tmp_path):
    data = images()
    convert(data, tmp_path / "a.rec")
    convert(load("rec:a_train.rec,a_test.rec", root=tmp_path), tmp_path / "b")
    convert(load("folder:b", root=tmp_path, in_memory=0), tmp_path / "c.npz")
    convert(load("npz:c.npz", root=tmp_path), tmp_path / "d.rec", encoding="raw")
    assert same(load("rec:d_train.rec,d_test.rec?raw=6x5x3", root=tmp_path), data)


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_encoded_images_are_copied_byte_for_byte_and_the_file_is_mxnets_own(tmp_path, form):
    spec = f"rec:digits_40_{form}.rec,digits_40_{form}.rec"
    convert(load(spec, root=MXNET, in_memory=0), tmp_path / "own.rec")
    for ending in ("rec", "idx"):
        ours = (tmp_path / f"own_train.{ending}").read_bytes()
        assert ours == (MXNET / f"digits_40_{form}.{ending}").read_bytes()


def test_label_vectors_stay_vectors(tmp_path):
    spec = "rec:digits_label_vectors.rec,digits_label_vectors.rec"
    convert(load(spec, root=MXNET, in_memory=0), tmp_path / "own.rec")
    ours = (tmp_path / "own_train.rec").read_bytes()
    assert ours == (MXNET / "digits_label_vectors.rec").read_bytes()


def test_files_in_folders_keep_their_bytes_and_their_kind(tmp_path):
    data = load("rec:digits_40_jpg.rec,digits_40_jpg.rec", root=MXNET, in_memory=0)
    convert(data, tmp_path / "out")
    files = sorted((tmp_path / "out" / "train").glob("*/*.jpg"))
    assert len(files) == 40
    file = RecordFile(MXNET / "digits_40_jpg.rec")
    record = file.read(*next(file.scan()))
    assert (tmp_path / "out" / "train" / "0" / "00000.jpg").read_bytes() == record[24:]


def test_jpeg_is_as_good_as_was_asked_for(tmp_path):
    smooth = torch.linspace(0, 255, 6 * 3 * 16 * 16).view(6, 3, 16, 16).byte()
    data = DataSet(
        ("a",), Split(smooth, torch.zeros(6).long()), Split(smooth, torch.zeros(6).long())
    )
    sizes = []
    for quality in (20, 95):
        name = f"q{quality}"
        convert(data, tmp_path / f"{name}.rec", encoding="jpeg", quality=quality)
        back = load(f"rec:{name}_train.rec,{name}_test.rec", root=tmp_path).train.inputs
        assert (back.int() - smooth.int()).abs().max() < 40
        sizes.append((tmp_path / f"{name}_train.rec").stat().st_size)
    assert sizes[0] < sizes[1]
    file = RecordFile(tmp_path / "q95_train.rec")
    content = file.read(*next(file.scan()))[24:]
    assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_bad_images_are_skipped_of_every_form(tmp_path):
    convert(images(), tmp_path / "set")
    bad = tmp_path / "set" / "train" / "cat" / "00002.png"
    bad.write_bytes(bad.read_bytes()[:50])
    for out, spec in (("a.rec", "rec:a_train.rec,a_test.rec"), ("b.npz", "npz:b.npz")):
        data = load("folder:set", root=tmp_path, in_memory=0, skip_bad=True)
        convert(data, tmp_path / out)
        back = load(spec, root=tmp_path)
        assert (len(back.train), len(back.test)) == (5, 2)
        assert back.train.targets.bincount().tolist() == [2, 3]


def test_nothing_is_overwritten_and_nothing_half_written_has_the_name(tmp_path):
    data = images()
    for name in ("set.rec", "set", "set.npz"):
        convert(data, tmp_path / name)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(UserError, match=r"exists already. Choose another name"):
            convert(data, tmp_path / name)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before

    def stop(split, done, of):
        raise KeyboardInterrupt

    for name in ("half.rec", "half", "half.npz"):
        with pytest.raises(KeyboardInterrupt):
            convert(data, tmp_path / name, progress=stop)
    assert not list(tmp_path.glob("half*"))
    convert(DataSet(("owl", "dog"), data.train, data.test), tmp_path / "half")
    assert not list((tmp_path / "half").rglob("cat"))  # nothing of what was broken off


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "missing/set.rec"}, "set_train.rec: there is no folder .*missing"),
        ({"encoding": "jpg"}, "there is no encoding 'jpg'. Did you mean 'jpeg'"),
        (
            {"encoding": "raw", "out": "set"},
            "expected encoded images, since the output is a folder",
        ),
        ({"quality": 0}, "quality: expected an integer from 1 to 100, got 0"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, options, message):
    out = tmp_path / options.pop("out", "set.rec")
    with pytest.raises(UserError, match=message):
        convert(images(), out, **options)


def test_tables_go_into_npz_alone(tmp_path):
    iris = load("iris")
    with pytest.raises(UserError, match=r"got torch.float32 \(4,\)\. Convert to NAME.npz"):
        convert(iris, tmp_path / "iris.rec")
    convert(iris, tmp_path / "iris.npz")
    back = load("npz:iris.npz", root=tmp_path)
    assert torch.equal(back.train.inputs, iris.train.inputs)
    assert back.classes == iris.classes


def test_a_class_name_that_leaves_the_folder_is_refused(tmp_path):
    data = images()
    for name in ("../cat", "", "..", ".hidden", "a\\b"):
        odd = DataSet((name, "dog"), data.train, data.test)
        with pytest.raises(UserError, match=r"cannot name a folder"):
            convert(odd, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(
    os.environ.get("VICINAL_SLOW") != "1", reason="takes a minute; VICINAL_SLOW=1 runs it"
)
def test_cifar_is_the_same_sixty_thousand_images_in_every_form(unpack, tmp_path):
    for write in (unpack.write_batches, unpack.write_folder, unpack.write_npz):
        write(tmp_path)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
    batches = load("cifar10", root=tmp_path)
    convert(batches, tmp_path / "own.rec", encoding="png")
    known = {name: sorted_by_content(split) for name, split in batches.splits.items()}
    assert {name: len(split) for name, split in known.items()} == {"train": 50_000, "test": 10_000}
    for spec in (
        "cifar10:cifar-10-python.tar.gz",
        "folder:cifar10",
        "npz:cifar10.npz",
        "rec:own_train.rec,own_test.rec",
    ):
        data = load(spec, root=tmp_path)
        assert data.classes == batches.classes
        for name, split in data.splits.items():
            assert sorted_by_content(split) == known[name], (spec, name)
    mean = normalization_of(batches.train).mean.flatten() / 255
    assert np.round(mean.numpy(), 4).tolist() == pytest.approx([0.4914, 0.4822, 0.4465])


def renamed(*classes):
    data = images()
    return DataSet(classes, data.train, data.test, brightest=255)


def test_an_index_file_is_not_overwritten(tmp_path):
    (tmp_path / "set_train.idx").write_text("precious")
    with pytest.raises(UserError, match=r"set_train\.idx exists already"):
        convert(images(), tmp_path / "set.rec")
    assert (tmp_path / "set_train.idx").read_text() == "precious"


@pytest.mark.parametrize("name", ["", "two\nlines", " blank", "cat"])
def test_a_class_name_that_would_come_back_as_another_is_refused(tmp_path, name):
    for out in ("set.rec", "set"):
        if out == "set" and name not in {"", "cat"}:
            continue
        with pytest.raises(UserError, match=r"class name"):
            convert(renamed(name, "cat"), tmp_path / out)
    assert not list(tmp_path.iterdir())


def test_a_class_that_a_part_has_not_is_refused_for_folders(tmp_path):
    data = images()
    few = DataSet(("cat", "dog"), data.train, Split(data.test.inputs, torch.zeros(2).long()))
    with pytest.raises(UserError, match=r"class dog has no example in the test split"):
        convert(few, tmp_path / "set")


def test_a_validation_part_goes_along(tmp_path):
    data = images()
    three = DataSet(data.classes, data.train, data.test, data.train, brightest=255)
    for out, spec in (
        ("a.rec", "rec:a_train.rec,a_test.rec,a_validation.rec"),
        ("b", "folder:b"),
        ("c.npz", "npz:c.npz"),
    ):
        convert(three, tmp_path / out)
        assert same(three, load(spec, root=tmp_path))


def test_colored_files_that_were_read_gray_are_written_gray(tmp_path):
    convert(images(), tmp_path / "set")
    gray = load("folder:set?channels=1", root=tmp_path, in_memory=0)
    convert(gray, tmp_path / "gray")
    with Image.open(next((tmp_path / "gray").rglob("*.png"))) as image:
        assert image.mode == "L"


def test_large_images_are_converted_a_few_at_a_time(tmp_path, monkeypatch):
    convert(images(), tmp_path / "set")
    data = load("folder:set", root=tmp_path, in_memory=0)
    asked = []
    read = type(data.train.inputs).read

    def watched(self, rows):
        asked.append(len(rows))
        return read(self, rows)

    monkeypatch.setattr(type(data.train.inputs), "read", watched)
    monkeypatch.setattr("vicinal.data.convert._PIECE", 2 * 3 * 6 * 5)
    convert(data, tmp_path / "out.rec")
    assert set(asked) == {2}


def test_records_are_numbered_without_gaps(tmp_path):
    convert(images(), tmp_path / "set")
    (tmp_path / "set" / "train" / "cat" / "00000.png").write_bytes(b"no image")
    data = load("folder:set", root=tmp_path, in_memory=0, skip_bad=True)
    convert(data, tmp_path / "a.rec")
    keys = [line.split("\t")[0] for line in (tmp_path / "a_train.idx").read_text().splitlines()]
    assert keys == ["0", "1", "2", "3", "4"]
    file = RecordFile(tmp_path / "a_train.rec")
    ids = [int.from_bytes(file.read(*record)[8:16], "little") for record in file.scan()]
    assert ids == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("out", "renames"), [("set.rec", 5), ("set.npz", 1), ("set", 1)])
def test_files_are_synced_before_they_get_their_names_and_the_folder_after(
    tmp_path, monkeypatch, out, renames
):
    calls = []
    for name in ("fsync", "sync", "replace"):
        original = getattr(os, name)

        def call(*args, name=name, original=original):
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(os, name, call)
    convert(images(), tmp_path / out)
    before = "sync" if out == "set" else "fsync"
    assert calls == [before, "replace", "fsync"] * renames


@pytest.mark.parametrize("option", ["exif=ignore", "alpha=black", "alpha=ignore"])
@pytest.mark.parametrize("form", FORMS)
def test_options_that_change_pixels_hold_after_conversion(tmp_path, option, form):
    exif = Image.Exif()
    exif[0x0112] = 3
    for k in range(8):
        path = tmp_path / "src" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (6, 5, 4), np.uint8)
        Image.fromarray(pixels).save(path, exif=exif)
    data = load(f"folder:src?{option}", root=tmp_path, in_memory=0, test_fraction=0.5)
    name, spec = FORMS[form]
    convert(data, tmp_path / name)
    assert same(data, load(spec, root=tmp_path))


@pytest.mark.parametrize("form", FORMS)
def test_white_stays_white_if_it_is_not_255(tmp_path, form):
    name, source = FORMS[form]
    data = load("digits")
    convert(data, tmp_path / name)
    found = load(source, root=tmp_path)
    assert found.brightest == 255
    assert sorted_by_content(found.test) == sorted(
        (int(y), np.round(x.double().numpy() * 255 / 16).astype(np.uint8).tobytes())
        for x, y in zip(
            data.test.inputs.repeat(1, found.test.inputs.shape[1], 1, 1),
            data.test.targets,
            strict=True,
        )
    )

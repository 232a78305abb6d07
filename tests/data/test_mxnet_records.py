import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vicinal.data import load
from vicinal.data.formats.recordio import pack_image, write_record
from vicinal.errors import UserError

MXNET = Path(__file__).parent / "mxnet"


def truth_of(path):
    with np.load(path) as file:
        return dict(file)


def mxnet(name, **options):
    return load(f"rec:{name}.rec,{name}.rec", root=MXNET, **options)


def png(value, size=(4, 5)):
    out = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def written(folder, name, records):
    with (folder / name).open("wb") as file:
        for record in records:
            write_record(file, record)
    return name


def images(folder, name, labels, *, contents=None):
    contents = contents or [png(k) for k in range(len(labels))]
    packed = [
        pack_image(np.atleast_1d(label), k, content)
        for k, (label, content) in enumerate(zip(labels, contents, strict=True))
    ]
    return written(folder, name, packed)


def pixels(split):
    return split.inputs.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_png_records_of_mxnet_read_bit_for_bit(in_memory):
    data = mxnet("digits_40_png", in_memory=in_memory)
    truth = truth_of(MXNET / "digits_40_truth.npz")
    read = data.train.read(range(40))
    assert np.array_equal(read.inputs.permute(0, 2, 3, 1).numpy(), truth["images"])
    assert data.train.targets.tolist() == truth["labels"].tolist()
    assert isinstance(data.train.inputs, torch.Tensor) == (in_memory > 0)
    assert data.classes == tuple("0123456789")


def test_jpeg_records_of_mxnet_read_as_another_decoder_reads_them():
    truth = truth_of(MXNET / "digits_40_truth.npz")
    content = (MXNET / "digits_40_jpg.rec").read_bytes()
    lines = (MXNET / "digits_40_jpg.idx").read_text().splitlines()
    offsets = [int(line.split("\t")[1]) for line in lines]
    theirs = [
        np.asarray(Image.open(io.BytesIO(content[offset + 32 :])).convert("RGB"))
        for offset in offsets
    ]
    found = pixels(mxnet("digits_40_jpg").train).astype(int)
    assert np.abs(found - np.stack(theirs)).max() <= 2
    assert np.abs(found - truth["images"]).mean() < 1  # what the encoder lost


def test_label_vectors_become_targets_of_real_values():
    data = mxnet("digits_label_vectors")
    assert data.classes == ()
    assert data.train.targets.tolist() == [[k, k / 2, -1] for k in range(10)]


@pytest.mark.parametrize("form", ["jpg", "png"])
def test_500_images_of_cifar_from_mxnet_are_read(shared, form):
    name = shared / "mxnet" / f"cifar10_500_{form}"
    truth = truth_of(shared / "mxnet" / "cifar10_500_truth.npz")
    data = load(f"rec:{name}.rec,{name}.rec")
    assert data.train.targets.tolist() == truth["labels"].tolist()
    lost = np.abs(pixels(data.train).astype(int) - truth["images"]).mean()
    assert lost == 0 if form == "png" else lost < 4


def test_an_index_decides_the_order_of_records_and_has_to_list_all(tmp_path):
    images(tmp_path, "all.rec", [0, 1, 2])
    spec = "rec:all.rec,all.rec"
    assert load(spec, root=tmp_path).train.targets.tolist() == [0, 1, 2]
    offsets = [0, *np.cumsum([8 + (24 + len(png(k)) + 3) // 4 * 4 for k in range(2)])]
    lines = [f"{k}\t{offsets[k]}\n" for k in (1, 2, 0)]
    (tmp_path / "all.idx").write_text("".join(lines))
    data = load(spec, root=tmp_path)
    assert data.train.targets.tolist() == [1, 2, 0]
    assert data.train.inputs[:, 0, 0, 0].tolist() == [1, 2, 0]
    (tmp_path / "all.idx").write_text("".join(lines[:2]))
    with pytest.raises(UserError, match=r"all\.idx lists 2 of the 3 records\. Delete"):
        load(spec, root=tmp_path)


def test_a_payload_in_parts_is_joined(tmp_path):
    # The id is the magic number itself, so that MXNet divides the header of the record.
    magic = 0xCED7230A
    records = [struct.pack("<IfQQ", 0, float(k), magic, 0) + png(k) for k in range(3)]
    written(tmp_path, "splits.rec", records)
    data = load("rec:splits.rec,splits.rec", root=tmp_path)
    assert data.train.targets.tolist() == [0, 1, 2]
    assert data.train.inputs[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_one_file_is_split_in_the_same_way_for_the_same_seed(tmp_path):
    images(tmp_path, "all.rec", [k % 2 for k in range(20)])
    first, again, other = (
        load("rec:all.rec", root=tmp_path, seed=s, test_fraction=0.3) for s in (0, 0, 1)
    )
    assert (len(first.train), len(first.test)) == (14, 6)
    assert first.test.targets.sum() == 3
    assert torch.equal(first.test.inputs, again.test.inputs)
    assert not torch.equal(first.test.inputs, other.test.inputs)
    seen = torch.cat([first.train.inputs, first.test.inputs])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == list(range(20))


def test_labels_that_are_not_integers_are_real_values(tmp_path):
    images(tmp_path, "real.rec", [0.5, 1.25, 2.0])
    data = load("rec:real.rec,real.rec", root=tmp_path)
    assert data.classes == ()
    assert data.train.targets.tolist() == [0.5, 1.25, 2.0]
    images(tmp_path, "whole.rec", [1, 2, 3])
    data = load("rec:whole.rec,whole.rec?task=regression", root=tmp_path)
    assert data.train.targets.dtype == torch.float32


def test_class_names_come_from_a_file_next_to_the_records_or_a_named_one(tmp_path):
    images(tmp_path, "a_train.rec", [0, 1])
    spec = "rec:a_train.rec,a_train.rec"
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert load(spec, root=tmp_path).classes == ("cat", "dog")
    (tmp_path / "a_classes.txt").write_text("hen\nowl\n")
    assert load(spec, root=tmp_path).classes == ("hen", "owl")
    (tmp_path / "named.txt").write_text("x\ny\nz\n")
    assert load(f"{spec}?classes=named.txt", root=tmp_path).classes == ("x", "y", "z")
    (tmp_path / "named.txt").write_text("x\nx\n")
    with pytest.raises(UserError, match=r"named\.txt: expected distinct, non-empty class names"):
        load(f"{spec}?classes=named.txt", root=tmp_path)


def test_raw_payloads_are_pixels(tmp_path):
    known = np.random.default_rng(0).integers(0, 256, (3, 2, 4, 3), dtype=np.uint8)
    images(tmp_path, "raw.rec", [0, 1, 0], contents=[image.tobytes() for image in known])
    data = load("rec:raw.rec,raw.rec?raw=2x4x3", root=tmp_path)
    assert np.array_equal(pixels(data.train), known)
    with pytest.raises(UserError, match=r"record 0 at byte 0: expected 48 bytes"):
        load("rec:raw.rec,raw.rec?raw=4x4x3", root=tmp_path)
    with pytest.raises(UserError, match=r"raw=4x4: expected HEIGHTxWIDTHxCHANNELS"):
        load("rec:raw.rec,raw.rec?raw=4x4", root=tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, -1], "record 2 at byte .*, got -1"),
        ([0, 1, 7], "record 2 at byte .*: expected a label of the 3 classes, got 7"),
        ([0, 1, 0.5], "record 2 .* got 0.5"),
        ([0, float("nan")], "record 1 .* expected 1 finite label as in the first record"),
        ([0, [1, 2]], "record 1 .* expected 1 finite label .*got .1.0, 2.0."),
    ],
)
def test_a_label_without_a_class_raises_an_error_with_its_record(tmp_path, labels, message):
    images(tmp_path, "bad.rec", labels)
    with pytest.raises(UserError, match=message):
        load("rec:bad.rec,bad.rec", root=tmp_path)


def test_a_test_label_that_is_not_in_the_training_split_raises_an_error(tmp_path):
    images(tmp_path, "train.rec", [0, 1])
    images(tmp_path, "test.rec", [0, 2])
    with pytest.raises(
        UserError, match=r"test\.rec, record 1 .* expected a label of the 2 classes, got 2"
    ):
        load("rec:train.rec,test.rec", root=tmp_path)


def test_a_bad_record_raises_an_error_with_its_offset_or_is_skipped(tmp_path):
    contents = [png(k) for k in range(4)]
    contents[2] = contents[2][:40]
    images(tmp_path, "some.rec", [0, 1, 2, 3], contents=contents)
    spec = "rec:some.rec,some.rec"
    with pytest.raises(
        UserError, match=r"some\.rec, record 2 at byte \d+: the image cannot be"
    ) as e:
        load(spec, root=tmp_path)
    assert "--set data.skip_bad=true" in str(e.value)
    split = load(spec, root=tmp_path, skip_bad=True).train
    assert split.targets.tolist() == [0, 1, 3]
    assert split.inputs[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert len(split.skipped) == 1
    assert "record 2" in split.skipped[0]


def test_a_record_that_is_too_short_for_its_header_can_be_skipped(tmp_path):
    written(
        tmp_path, "short.rec", [pack_image([0], 0, png(0)), b"short", pack_image([1], 2, png(2))]
    )
    with pytest.raises(
        UserError, match=r"record 1 at byte .* expected an image record of at least 24 bytes"
    ):
        load("rec:short.rec,short.rec", root=tmp_path)
    split = load("rec:short.rec,short.rec", root=tmp_path, skip_bad=True).train
    assert split.targets.tolist() == [0, 1]
    assert "record 1" in split.skipped[0]


def test_an_index_with_an_offset_within_a_record_is_named(tmp_path):
    images(tmp_path, "all.rec", [0, 1])
    (tmp_path / "all.idx").write_text("0\t0\n1\t12\n")
    with pytest.raises(UserError, match=r"all\.idx lists byte 12, where no record begins"):
        load("rec:all.rec,all.rec", root=tmp_path)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rec:", "expected the path of a record file after the colon"),
        ("rec:no.rec", r"there is no record file no\.rec in the working directory or in"),
        ("rec:a.rec,b.rec,c.rec,d.rec", r"expected one file, TRAIN.rec,TEST.rec or .*, got 4"),
        ("rec:all.rec?sise=3", "no rec option 'sise'. Did you mean 'size'"),
        ("rec:all.rec?size=0", "size=0: expected an integer from 1"),
        ("rec:all.rec?channels=2", "no value of the option channels '2'"),
        ("rec:all.rec?task=guess", "no value of the option task 'guess'"),
        ("rec:all.rec?size", "expected option=value after the question mark, got 'size'"),
        ("rec:all.rec?size=3&size=4", "the option size is repeated"),
    ],
)
def test_an_invalid_source_raises_an_error(tmp_path, spec, message):
    images(tmp_path, "all.rec", [0, 1] * 5)
    with pytest.raises(UserError, match=message):
        load(spec, root=tmp_path)


def test_images_of_two_sizes_raise_an_error_or_are_resized(tmp_path):
    contents = [png(k, size) for k, size in enumerate([(4, 4), (4, 8)] * 5)]
    images(tmp_path, "two.rec", [0, 0, 1, 1] * 2 + [0, 1], contents=contents)
    with pytest.raises(UserError, match=r"expected an image of 4x4x3 like the first one"):
        load("rec:two.rec,two.rec", root=tmp_path)
    split = load("rec:two.rec,two.rec?size=2&channels=1", root=tmp_path).train
    assert split.inputs.shape == (10, 1, 2, 2)
    assert split.inputs[:, 0, 0, 0].tolist() == list(range(10))


def test_a_record_with_other_labels_can_be_skipped(tmp_path):
    images(tmp_path, "odd.rec", [0, 1, [1, 2], float("nan"), 1])
    split = load("rec:odd.rec,odd.rec", root=tmp_path, skip_bad=True).train
    assert split.targets.tolist() == [0, 1, 1]
    assert split.inputs[:, 0, 0, 0].tolist() == [0, 1, 4]
    assert [sentence.split(",")[1][:9] for sentence in split.skipped] == [" record 2", " record 3"]


def test_a_third_file_is_the_validation_split(tmp_path):
    for k, name in enumerate(("a", "b", "c")):
        images(tmp_path, f"{name}.rec", [0, 1], contents=[png(10 * k), png(10 * k + 1)])
    data = load("rec:a.rec,b.rec,c.rec", root=tmp_path)
    assert data.test.inputs[:, 0, 0, 0].tolist() == [10, 11]
    assert data.validation.inputs[:, 0, 0, 0].tolist() == [20, 21]


def test_a_wrong_raw_shape_raises_an_error_before_memory_is_allocated(tmp_path):
    images(tmp_path, "raw.rec", [0, 1], contents=[bytes(48), bytes(48)])
    with pytest.raises(UserError, match=r"record 0 .* expected 2700000000 bytes, .* got 48"):
        load("rec:raw.rec,raw.rec?raw=30000x30000x3", root=tmp_path)


def test_integer_labels_without_names_are_noted_as_classes(tmp_path):
    images(tmp_path, "all.rec", [k % 2 for k in range(20)])
    said = [note.text for note in load("rec:all.rec", root=tmp_path).notes]
    assert sum("read as 2 classes; task=regression reads" in text for text in said) == 1
    chosen = load("rec:all.rec?task=classification", root=tmp_path)
    assert not any("task=regression" in note.text for note in chosen.notes)


def test_hidden_records_in_a_folder_are_not_read(tmp_path):
    for name in ("f_train.rec", "f_test.rec", "._f_train.rec"):
        images(tmp_path, name, [0, 1, 0, 1])
    assert len(load(f"rec:{tmp_path}").train) == 4

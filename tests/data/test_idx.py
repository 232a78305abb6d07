import gzip
import struct

import numpy as np
import pytest
import torch

from vicinal.data import load
from vicinal.data.formats.idx import read_idx
from vicinal.errors import UserError


def idx(values, kind=8):
    head = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return head + values.tobytes()


def images(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels(count, seed):
    return np.random.default_rng(seed).integers(0, 10, count).astype(np.uint8)


def written(folder, *, packed=False, dotted=False):
    folder.mkdir(exist_ok=True)
    contents = {
        "train-images-idx3-ubyte": idx(images(30, 1)),
        "train-labels-idx1-ubyte": idx(labels(30, 1)),
        "t10k-images-idx3-ubyte": idx(images(10, 2)),
        "t10k-labels-idx1-ubyte": idx(labels(10, 2)),
    }
    for name, content in contents.items():
        path = folder / (name.replace("-idx", ".idx") if dotted else name)
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


@pytest.mark.parametrize("form", [{}, {"packed": True}, {"dotted": True}])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_four_files_are_read(tmp_path, name, form):
    written(tmp_path / name, **form)
    for data in (load(name, root=tmp_path), load(f"{name}:{tmp_path / name}")):
        assert np.array_equal(data.train.inputs[:, 0].numpy(), images(30, 1))
        assert np.array_equal(data.test.targets.numpy(), labels(10, 2))
        assert data.train.inputs.shape == (30, 1, 28, 28)
        assert data.train.targets.dtype == torch.int64
        assert len(data.classes) == 10
    assert data.classes[1] == {"mnist": "1", "fashion-mnist": "Trouser"}[name]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        UserError, match=r"mnist is not in .*mnist: expected train-images-idx3-ubyte"
    ):
        load("mnist", root=tmp_path)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or incomplete .unpack requires"),
        (GOOD[:7], "damaged or incomplete .unpack requires"),
        (GOOD[:-1], "damaged or incomplete .expected 6 bytes after the header, got 5"),
        (GOOD + b"x", "expected 6 bytes after the header, got more"),
        (idx(np.zeros((2, 2), np.int32), kind=12), "got one that begins with 0x00000c02"),
        (b"\x89PNG\r\n\x1a\n", "expected a file of unsigned bytes in IDX format"),
        (
            struct.pack(">HBBII", 0, 8, 2, 2**32 - 1, 2**32 - 1),
            "claims 18446744065119617025 bytes, which",
        ),
        (struct.pack(">HBB", 0, 8, 255), "expected a file of unsigned bytes in IDX format"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_file_raises_an_error(tmp_path, content, message, packed):
    path = tmp_path / ("file.gz" if packed else "file")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=message):
        read_idx(path)


def test_a_damaged_compressed_file_raises_an_error(tmp_path):
    path = tmp_path / "file.gz"
    whole = gzip.compress(idx(images(3, 0)))
    wrong_sum = whole[:-8] + b"\0\0\0\0" + whole[-4:]
    for content in (b"", b"no gzip", whole[:40], whole[:-9], wrong_sum):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"file\.gz"):
            read_idx(path)


def test_a_label_without_a_class_raises_an_error_with_its_byte(tmp_path):
    written(tmp_path / "mnist")
    wrong = labels(30, 1)
    wrong[4] = 10
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(idx(wrong))
    assert path.read_bytes()[12] == 10
    with pytest.raises(
        UserError, match=r"row 4 at byte 12: expected a label of the 10 classes, got 10"
    ):
        load("mnist", root=tmp_path)


def test_images_and_labels_of_different_lengths_raise_an_error(tmp_path):
    written(tmp_path / "mnist")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(idx(labels(29, 1)))
    with pytest.raises(UserError, match=r"got \(30, 28, 28\) and \(29,\)"):
        load("mnist", root=tmp_path)

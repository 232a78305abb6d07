"""Arrays as people have them, each with the right answer known."""

import gzip
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vicinal.data import load
from vicinal.errors import UserError

CASES = Path(__file__).parents[1] / "cases"
CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.integers(0, 256, (12, 28, 28), dtype=np.uint8)


def texts(data):
    return [note.text for note in data.notes]


def idx(values):
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_the_arrays_of_medmnist_are_read_with_their_validation_split():
    data = load(f"npz:{CASES / 'arrays' / 'med.npz'}")
    arrays = np.load(CASES / "arrays" / "med.npz")
    for name, key in (("train", "train"), ("validation", "val"), ("test", "test")):
        split = data.splits[name]
        assert np.array_equal(split.inputs.permute(0, 2, 3, 1).numpy(), arrays[f"{key}_images"])
        assert split.targets.tolist() == arrays[f"{key}_labels"][:, 0].tolist()
    assert "train_labels of shape (30, 1) are read as (30,)" in texts(data)


def test_keras_arrays_are_read_and_others_noted(tmp_path):
    np.savez(
        tmp_path / "mnist.npz",
        x_train=IMAGES,
        y_train=np.arange(12) % 2,
        x_test=IMAGES[:4],
        y_test=np.arange(4) % 2,
        more=np.zeros(3),
    )
    data = load(f"npz:{tmp_path / 'mnist.npz'}")
    assert np.array_equal(data.train.inputs[:, 0].numpy(), IMAGES)
    assert "arrays that are not read: more" in texts(data)


def test_several_integer_labels_for_an_example_raise_an_error(tmp_path):
    arrays = {f"{name}_images": IMAGES for name in ("train", "test")}
    labels = {f"{name}_labels": np.ones((12, 14), np.uint8) for name in ("train", "test")}
    np.savez(tmp_path / "chest.npz", **arrays, **labels)
    with pytest.raises(UserError, match=r"train_labels of shape \(12,\), got uint8 \(12, 14\)"):
        load(f"npz:{tmp_path / 'chest.npz'}")


def written_mnist(root, labels, train="train"):
    for stem, count in ((train, 12), ("t10k", 4)):
        (root / f"{stem}-images-idx3-ubyte").write_bytes(idx(IMAGES[:count]))
        (root / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels[:count]))


def test_the_folders_of_mnist_on_kaggle_are_read(tmp_path):
    labels = (np.arange(12) % 10).astype(np.uint8)
    for stem, count in (("train", 12), ("t10k", 4)):
        for kind, values in (("images-idx3", IMAGES), ("labels-idx1", labels)):
            folder = tmp_path / f"{stem}-{kind}-ubyte"
            folder.mkdir()
            (folder / f"{stem}-{kind}-ubyte").write_bytes(idx(values[:count]))
    data = load(f"mnist:{tmp_path}")
    assert np.array_equal(data.train.inputs[:, 0].numpy(), IMAGES)
    dotted = tmp_path / "train-images-idx3-ubyte"
    (dotted / "train-images-idx3-ubyte").rename(dotted / "train-images.idx3-ubyte")
    assert np.array_equal(load(f"mnist:{tmp_path}").train.inputs[:, 0].numpy(), IMAGES)


@pytest.mark.parametrize("packed", [False, True])
def test_emnist_is_read_upright_with_the_names_in_its_mapping(tmp_path, packed):
    labels = (1 + np.arange(12) % 3).astype(np.uint8)  # letters count from one
    for split, count in (("train", 12), ("test", 4)):
        for kind, values in (("images-idx3", IMAGES), ("labels-idx1", labels)):
            content = idx(values[:count])
            path = tmp_path / f"emnist-letters-{split}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n3 67 99\n")
    data = load(f"emnist:{tmp_path}")
    assert data.classes == ("Aa", "Bb", "Cc")
    assert data.train.targets.tolist() == (labels - 1).tolist()
    assert np.array_equal(data.train.inputs[:, 0].numpy(), IMAGES.transpose(0, 2, 1))
    assert any("transposed" in text for text in texts(data))
    assert load(f"emnist:{tmp_path}?split=letters").classes == data.classes
    (tmp_path / "emnist-balanced-train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(UserError, match=r"got those of balanced and letters. .* with .split=NAME"):
        load(f"emnist:{tmp_path}")
    (tmp_path / "emnist-letters-mapping.txt").write_text("1 65 97\n2 66 98\n")
    with pytest.raises(
        UserError, match=r"row 2 at byte 10: expected a label of the 2 classes, got 3"
    ):
        load(f"emnist:{tmp_path}?split=letters")
    assert len(load(f"emnist:{tmp_path}?split=letters", skip_bad=True).train) == 8


def bad_mnist(root):
    labels = (np.arange(12) % 10).astype(np.uint8)
    labels[[5, 7]] = 10
    written_mnist(root, labels)
    return f"mnist:{root}", [0, 1, 2, 3, 4, 6, 8, 9, 0, 1]


def bad_npz(root):
    labels = np.arange(12) % 3
    labels[[3, 7]] = -1, 9
    np.savez(
        root / "a.npz",
        train_images=IMAGES,
        train_labels=labels,
        test_images=IMAGES[:3],
        test_labels=np.arange(3),
        classes=np.array(["a", "b", "c"]),
    )
    return f"npz:{root / 'a.npz'}", [0, 1, 2, 1, 2, 0, 2, 0, 1, 2]


def bad_cifar(root):
    inside = root / "cifar-10-batches-py"
    inside.mkdir()
    for k, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        pixels = CHANCE.integers(0, 256, (2, 3072), dtype=np.uint8)
        batch = {b"data": pixels, b"labels": [0, 5 if k == 1 else 1]}
        (inside / name).write_bytes(pickle.dumps(batch, protocol=2))
    meta = {b"label_names": [b"a", b"b"]}
    (inside / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return f"cifar10:{root}", [0, 1, 0, 0, 1, 0, 1, 0, 1]


def bad_foreign(root):
    sys.modules["labels_of_others"] = type(sys)("labels_of_others")

    class Items(list):
        classes = ("a", "b")

    rows = [(image, k % 2) for k, image in enumerate(IMAGES)]
    rows[3] = (IMAGES[3], 2)
    sys.modules["labels_of_others"].data = Items(rows), Items(rows[:2])
    return "import:labels_of_others:data", [0, 1, 0, 0, 1, 0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("bad", [bad_mnist, bad_npz, bad_cifar, bad_foreign])
def test_labels_out_of_range_raise_an_error_or_are_skipped(bad, tmp_path):
    spec, labels = bad(tmp_path)
    with pytest.raises(UserError, match="To skip such examples"):
        load(spec)
    data = load(spec, skip_bad=True)
    assert data.train.targets.tolist() == labels
    assert len(data.train.inputs) == len(labels)
    assert 1 <= len(data.train.skipped) <= 2
    assert not data.test.skipped


def bomb_npz(path):
    """Write a compressed file of 150 kB that takes 150 MB."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("train_images.npy", "w") as file,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (150, 1000, 1000)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(150):
            file.write(bytes(1_000_000))


def bomb_idx(path):
    for stem in ("train", "t10k"):
        (path / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.zeros(150, np.uint8)))
        with gzip.open(path / f"{stem}-images-idx3-ubyte.gz", "wb", 1) as file:
            file.write(struct.pack(">HBB3I", 0, 8, 3, 150, 1000, 1000))
            for _ in range(150):
                file.write(bytes(1_000_000))


def test_files_that_decode_to_more_than_max_bytes_take_no_memory(tmp_path):
    bomb_npz(tmp_path / "bomb.npz")
    bomb_idx(tmp_path)
    code = """
import resource, sys
from vicinal.data import load
from vicinal.errors import UserError
load("digits")
import zipfile, zlib_ng.gzip_ng
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for spec in sys.argv[1:]:
    try:
        load(spec, max_bytes=100_000_000)
    except UserError as error:
        assert "at most 100000000 bytes" in str(error), error
    else:
        raise AssertionError(spec)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, f"npz:{tmp_path / 'bomb.npz'}", f"mnist:{tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40_000  # KiB

import io
import zipfile

import numpy as np
import pytest
import torch

from vicinal.data import load
from vicinal.errors import UserError

CHANCE = np.random.default_rng(0)
IMAGES = CHANCE.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
GOOD = {
    "train_images": IMAGES,
    "train_labels": np.array([0, 1, 2, 0, 1, 2]),
    "test_images": IMAGES[:2],
    "test_labels": np.array([0, 1]),
    "classes": np.array(["a", "b", "c"]),
}


def loaded(folder, arrays, save=np.savez):
    save(folder / "set.npz", **arrays)
    return load("npz:set.npz", root=folder)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_images_are_read(tmp_path, save):
    data = loaded(tmp_path, GOOD, save)
    assert np.array_equal(data.train.inputs.permute(0, 2, 3, 1).numpy(), IMAGES)
    assert data.train.targets.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.classes == ("a", "b", "c")
    assert data.brightest == 255


def test_gray_images_in_fortran_order_get_a_channel(tmp_path):
    gray = np.asfortranarray(IMAGES[..., 0])
    data = loaded(tmp_path, GOOD | {"train_images": gray, "test_images": gray[:2]})
    assert np.array_equal(data.train.inputs[:, 0].numpy(), gray)


def test_tables_and_real_values_are_read(tmp_path):
    values = CHANCE.normal(size=(6, 7))
    data = loaded(
        tmp_path,
        {
            "train_inputs": values,
            "train_labels": values[:, 0],
            "test_inputs": values,
            "test_labels": values[:, 1],
            "validation_inputs": values[:1],
            "validation_labels": values[:1, 0],
        },
    )
    assert torch.equal(data.train.inputs, torch.from_numpy(values).float())
    assert data.test.targets.tolist() == values[:, 1].astype(np.float32).tolist()
    assert len(data.validation) == 1
    assert data.classes == ()
    assert data.brightest is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "expected train_images .or train_inputs. and train_labels, got"),
        ({"test_labels": None}, "expected test_images"),
        (
            {"train_labels": np.zeros(5, int)},
            r"expected train_labels of shape \(6,\), got int64 \(5,\)",
        ),
        (
            {"train_labels": np.array([0, 1, 2, 0, 1, -1])},
            "expected a label of the 3 classes, got -1",
        ),
        (
            {"train_labels": np.array(["a"] * 6)},
            "classes from 0 or floats in train_labels, got texts. Save numbers from 0",
        ),
        (
            {"test_labels": np.array([0, 3])},
            "test_labels, row 1: expected a label of the 3 classes, got 3",
        ),
        (
            {"test_labels": np.array([0, 0.5])},
            "test: expected labels with the dtype and shape of those in train",
        ),
        (
            {"test_images": IMAGES[:2, :3]},
            "test: expected inputs with the dtype and shape of those in train",
        ),
        ({"train_images": IMAGES.astype(float)}, "train_images of type uint8 .*, got type float64"),
        ({"train_images": IMAGES[..., :2]}, "with 1 or 3 channels, got type uint8"),
        (
            {"classes": np.array([1, 2, 3])},
            r"expected an array 'classes' of strings \(n,\), got int64 \(3,\)",
        ),
        (
            {"classes": None, "train_labels": np.array([0, 1, 2, 0, 1, 99])},
            "train_labels: expected labels below 6, the number of examples, got 99",
        ),
    ],
)
def test_arrays_of_other_shapes_or_types_raise_an_error(tmp_path, changes, message):
    arrays = {key: value for key, value in (GOOD | changes).items() if value is not None}
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, arrays)


def test_an_array_of_objects_raises_an_error_and_is_not_unpickled(tmp_path):
    with pytest.raises(UserError, match=r"train_labels: expected .* got Python objects"):
        loaded(tmp_path, GOOD | {"train_labels": np.array([{}] * 6, dtype=object)})


def test_a_header_that_claims_more_than_the_file_has_raises_an_error(tmp_path):
    array = io.BytesIO()
    np.save(array, np.zeros(10, np.uint8))
    lying = array.getvalue().replace(b"(10,), ", b"(10000000000,), ".ljust(16))
    lying = lying[:8] + (118).to_bytes(2, "little") + lying[10:]
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("train_images.npy", lying)
    with pytest.raises(UserError, match=r"set\.npz"):
        load("npz:set.npz", root=tmp_path)


def test_damaged_files_raise_an_error(tmp_path):
    loaded(tmp_path, GOOD)
    path = tmp_path / "set.npz"
    whole = path.read_bytes()
    at = whole.index(IMAGES.tobytes()[:64])
    for content in (b"", b"none", whole[:200], whole[:-30], whole[:at] + b"!!" + whole[at + 2 :]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"set\.npz"):
            load("npz:set.npz", root=tmp_path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.full((6, 2), 1e300), "finite floats in train_inputs, got 1e.300 in row 0"),
        (np.float64(1), r"shape \(n, ...\), got \(\)"),
        (np.zeros((6, 0)), r"shape \(n, ...\), got \(6, 0\)"),
        (np.zeros(6), r"got \(6,\)\. A single number for each example has the shape \(n, 1\)"),
        (np.zeros((6, 2), np.int32), r"got int32\. Convert them by \.astype\(np\.float32\)"),
        (np.array(["a text"] * 6), r"got <U6\. Write texts into a CSV file.*text:FILE"),
    ],
)
def test_inputs_of_other_types_or_shapes_raise_an_error(tmp_path, inputs, message):
    arrays = {"train_inputs": inputs, "train_labels": np.arange(6), "test_inputs": inputs}
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, arrays | {"test_labels": np.arange(6)})


def test_more_values_than_the_header_claims_raise_an_error(tmp_path):
    loaded(tmp_path, GOOD)
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content + b"x" * (name == "test_images.npy"))
    with pytest.raises(UserError, match=r"expected 120 bytes after the header, got more"):
        load("npz:set.npz", root=tmp_path)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.arange(60.0) % 3, "3 different integers, and are read as real values"),
        (np.eye(3)[np.arange(60) % 3], "make them integers with argmax(1)"),
        (np.arange(60.0), None),
        (np.arange(60.0) % 3 + 0.5, None),
        ((CHANCE.random((60, 3)) > 0.4).astype(float), None),
    ],
)
def test_floats_that_may_be_classes_are_doubted(tmp_path, labels, words):
    x = CHANCE.normal(size=(60, 2))
    arrays = {"x_train": x, "y_train": labels, "x_test": x + 1, "y_test": labels}
    doubts = [note.text for note in loaded(tmp_path, arrays).notes if note.doubtful]
    assert len(doubts) == (words is not None)
    assert words is None or words in doubts[0]


@pytest.mark.parametrize("names", [("x", "y"), ("X", "y"), ("X_train", "y_train")])
def test_arrays_without_a_test_split_are_split(tmp_path, names):
    x, y = CHANCE.normal(size=(60, 2)), np.arange(60) % 3
    np.savez(tmp_path / "set.npz", **dict(zip(names, (x, y), strict=True)))
    data = load("npz:set.npz", root=tmp_path, test_fraction=0.25)
    assert (len(data.train), len(data.test), data.fixed_test) == (45, 15, False)
    assert data.test.targets.bincount().tolist() == [5, 5, 5]
    rows = torch.cat([data.train.inputs, data.test.inputs]).numpy()
    assert sorted(map(tuple, rows)) == sorted(map(tuple, x.astype(np.float32)))
    folds = [load("npz:set.npz", root=tmp_path, fold=(k, 3)).test.inputs for k in range(3)]
    assert len(torch.cat(folds).unique(dim=0)) == 60


def test_arrays_of_other_names_are_listed(tmp_path):
    np.savez(tmp_path / "set.npz", features=np.ones(3), labels=np.ones(3))
    with pytest.raises(UserError, match=r"or x and y, got features, labels\. Rename them"):
        load("npz:set.npz", root=tmp_path)


def test_labels_that_start_at_one_are_doubted(tmp_path):
    x, y = CHANCE.normal(size=(60, 2)), 1 + np.arange(60) % 3
    found = loaded(tmp_path, {"x_train": x, "y_train": y, "x_test": x + 1, "y_test": y})
    assert any("Save labels - 1" in note.text for note in found.notes if note.doubtful)


def test_booleans_are_classes_and_usual_names_of_splits_are_known(tmp_path):
    x, y = np.random.default_rng(0).random((12, 3)), np.arange(12) % 2 == 0
    parts = {"train": slice(0, 6), "valid": slice(6, 9), "test": slice(9, 12)}
    arrays = {f"x_{name}": x[rows] for name, rows in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays, **{f"y_{name}": y[rows] for name, rows in parts.items()})
    data = load("npz:a.npz", root=tmp_path)
    assert data.train.targets.tolist() == [1, 0] * 3
    assert data.validation.targets.tolist() == [1, 0, 1]
    np.savez(tmp_path / "c.npz", x=x, y=y[:, None])
    assert load("npz:c.npz", root=tmp_path, test_fraction=0.5).train.targets.dtype == torch.int64
    np.savez(tmp_path / "b.npz", x=x, y=np.stack([y, ~y, y], 1))
    assert load("npz:b.npz", root=tmp_path, test_fraction=0.5).train.targets.dtype == torch.float32


def test_no_array_of_a_split_is_left_out_without_a_word(tmp_path):
    with pytest.raises(UserError, match=r"expected validation_images .* and validation_labels"):
        loaded(tmp_path, GOOD | {"validation_images": IMAGES[:2]})
    data = loaded(tmp_path, GOOD | {"x_train": IMAGES[:, 0, 0].astype(np.float32)})
    assert "arrays that are not read: train_inputs" in [note.text for note in data.notes]


def test_names_of_labels_that_are_not_classes_are_reported(tmp_path):
    y = np.eye(6, 3, dtype=np.float32)
    data = loaded(tmp_path, {"x": np.eye(6), "y": y, "classes": np.array(["a", "b", "c"])})
    assert data.classes == ()
    assert "arrays that are not read: classes" in [note.text for note in data.notes]

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import IterableDataset, TensorDataset

from vicinal.data.dataset import LoadOptions
from vicinal.data.formats.libraries import load_hugging_face, load_imported, load_torchvision
from vicinal.errors import UserError

CHANCE = np.random.default_rng(0)
COLORS = CHANCE.integers(0, 256, (10, 4, 6, 3), np.uint8)
LABELS = [row % 2 for row in range(10)]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


class Items:
    """A map-style data set of what it is given, in which an exception is raised."""

    def __init__(self, items, classes=None):
        self.items = list(items)
        if classes:
            self.classes = classes

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        if isinstance(self.items[row], Exception):
            raise self.items[row]
        return self.items[row]


def images(arrays, labels=LABELS, **more):
    return Items(
        ((Image.fromarray(a), label) for a, label in zip(arrays, labels, strict=True)), **more
    )


def chw(arrays):
    return torch.from_numpy(np.stack(arrays).transpose(0, 3, 1, 2))


@pytest.fixture
def module(monkeypatch):
    """Return a function that makes a module with these names, as if it were installed."""

    def make(name, **names):
        made = types.ModuleType(name)
        vars(made).update(names)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    return make


@pytest.fixture
def imported(module, tmp_path):
    """Return a function that loads an object by an import path."""

    def load(found, options=None, **wanted):
        module("somebody", data=found)
        return load_imported("somebody:data", options or {}, LoadOptions(tmp_path, **wanted))

    return load


def test_a_pair_of_data_sets_becomes_train_and_test(imported):
    data = imported((images(COLORS), images(COLORS[:4], LABELS[:4])))
    assert torch.equal(data.train.inputs, chw(COLORS))
    assert torch.equal(data.test.inputs, chw(COLORS[:4]))
    assert data.train.targets.tolist() == LABELS
    assert data.train.targets.dtype == torch.int64
    assert (data.classes, data.brightest, data.validation) == (("0", "1"), 255, None)


def test_a_third_data_set_is_the_validation_split(imported):
    data = imported(tuple(images(COLORS[:n], LABELS[:n]) for n in (6, 5, 4)))
    assert [len(split) for split in (data.train, data.test, data.validation)] == [6, 5, 4]


def test_a_single_data_set_is_split(imported):
    data = imported(images(COLORS, classes=["cat", "dog"]), test_fraction=0.4, seed=3)
    assert (len(data.train), len(data.test), data.classes) == (6, 4, ("cat", "dog"))
    assert data.test.targets.bincount().tolist() == [2, 2]
    known = {
        image.numpy().tobytes(): label for image, label in zip(chw(COLORS), LABELS, strict=True)
    }
    seen = [
        (image.numpy().tobytes(), int(label))
        for split in (data.train, data.test)
        for image, label in zip(split.inputs, split.targets, strict=True)
    ]
    assert dict(seen) == known
    assert len(seen) == 10


def test_a_function_or_class_that_makes_a_data_set_is_called(imported):
    class Mine(TensorDataset):
        def __init__(self):
            super().__init__(torch.arange(20.0).reshape(10, 2), torch.tensor(LABELS))

    assert imported(lambda: images(COLORS)).classes == ("0", "1")
    data = imported(Mine)
    assert data.train.inputs.shape == (8, 2)
    assert data.train.inputs.dtype == torch.float32
    assert data.brightest is None


def test_a_name_may_follow_a_dot_or_be_an_attribute(module, tmp_path):
    module("somebody", data=images(COLORS), box=types.SimpleNamespace(data=images(COLORS)))
    for where in ("somebody.data", "somebody:data", "somebody:box.data"):
        assert len(load_imported(where, {}, LoadOptions(tmp_path)).train) == 8


def test_modules_in_the_working_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "my_own_set.py").write_text("data = [([0.5, 1.0], k % 2) for k in range(10)]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    data = load_imported("my_own_set:data", {}, LoadOptions(tmp_path))
    sys.modules.pop("my_own_set")
    assert data.test.inputs.tolist() == [[0.5, 1.0]] * 2


def test_images_are_gray_only_if_all_are(imported):
    gray = [Image.fromarray(a[:, :, 0]) for a in COLORS]
    data = imported((Items(zip(gray, LABELS, strict=True)),) * 2)
    assert torch.equal(data.train.inputs[:, 0], torch.from_numpy(COLORS[:, :, :, 0]))
    mixed = Items(zip([*gray[:9], Image.fromarray(COLORS[9])], LABELS, strict=True))
    data = imported((Items(zip(gray, LABELS, strict=True)), mixed))
    assert data.train.inputs.shape == (10, 3, 4, 6)
    assert torch.equal(data.train.inputs[0, 2], torch.from_numpy(COLORS[0, :, :, 0]))
    assert torch.equal(data.test.inputs[9], chw(COLORS)[9])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_images_of_any_mode_are_read(imported, mode):
    image = Image.fromarray(COLORS[0]).convert(mode)
    data = imported((Items([(image, 0)]),) * 2)
    wanted = image.convert("L" if mode in {"1", "L", "LA"} else "RGB")
    assert torch.equal(data.train.inputs[0], chw([np.atleast_3d(np.asarray(wanted))])[0])


def test_sixteen_bits_become_eight(imported):
    values = np.array([[0, 128, 129, 65535]], np.uint16)  # a step is 257, rounded to the nearest
    data = imported((Items([(Image.fromarray(values), 0)]),) * 2)
    assert data.train.inputs.flatten().tolist() == [0, 0, 1, 255]


def test_uint8_arrays_and_tensors_are_images(imported):
    for item in (COLORS[0], chw(COLORS)[0], COLORS[0].transpose(2, 0, 1)):
        data = imported((Items([(item, 0)]),) * 2)
        assert torch.equal(data.train.inputs, chw(COLORS[:1]))
        assert data.brightest == 255
    narrow = chw(COLORS)[0, :, :, :3]  # three wide: the type tells where the channels are
    for item in (narrow, narrow.permute(1, 2, 0).numpy()):
        assert torch.equal(imported((Items([(item, 0)]),) * 2).train.inputs[0], narrow)
    for item in (COLORS[0, :, :, 0], torch.from_numpy(COLORS[0, :, :, 0])):
        data = imported((Items([(item, 0)]),) * 2)
        assert torch.equal(data.train.inputs[0, 0], torch.from_numpy(COLORS[0, :, :, 0]))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_numbers_become_float32(imported, kind):
    item = torch.tensor([0.0, 2.0, -3.0]).to(kind)
    data = imported((Items([(item, 0)]),) * 2)
    assert data.train.inputs.dtype == torch.float32
    assert data.train.inputs.tolist() == [[0.0, 2.0, -3.0]]
    assert data.brightest is None


def test_size_resizes_the_shorter_side_and_cuts_out_the_middle(imported):
    data = imported((images(COLORS),) * 2, {"size": "2"})
    wanted = ImageOps.fit(Image.fromarray(COLORS[5]), (2, 2), Image.Resampling.BILINEAR)
    assert torch.equal(data.train.inputs[5], chw([np.asarray(wanted)])[0])
    arrays = imported((Items(zip(COLORS, LABELS, strict=True)),) * 2, {"size": "2"})
    assert torch.equal(arrays.train.inputs, data.train.inputs)


def test_floating_point_targets_are_real_values(imported):
    rows = Items(([float(k)], k / 4) for k in range(10))
    data = imported((rows, rows))
    assert data.classes == ()
    assert data.train.targets.dtype == torch.float32
    assert data.train.targets.tolist() == [k / 4 for k in range(10)]
    vectors = Items(([1.0], np.array([k, k + 0.5])) for k in range(3))
    assert imported((vectors, vectors)).test.targets.tolist() == [[0, 0.5], [1, 1.5], [2, 2.5]]


@pytest.mark.parametrize(
    "target", [1, np.int8(1), np.array(1), np.array([1]), torch.tensor(1), True, np.uint64(1)]
)
def test_integer_targets_are_classes(imported, target):
    rows = Items([([1.0], target)])
    data = imported((rows, rows))
    assert (data.train.targets.tolist(), data.classes) == ([1], ("0", "1"))


BAD = {
    "cannot be read (KeyError: 'lost')": KeyError("lost"),
    "expected (input, target), got int": 3,
    "expected (input, target), got tuple": (COLORS[0], 1, 2),
    "got the text 'cat'": (COLORS[0], "cat"),
    "expected a target, got None": (COLORS[0], None),
    "expected a label of 0 or more, got -1": (COLORS[0], -1),
    "expected a class as target like the first row, got a real value": (COLORS[0], 0.5),
    "expected a target that is a class or real values": (COLORS[0], np.eye(2)),
    "expected a target of finite numbers, got nan": (COLORS[0], float("nan")),
    "got dict": ({"bytes": b""}, 0),
    "got NoneType": (None, 0),
    "expected numbers, got list": ([[1, 2], [3]], 0),
    "1 or 3 channels, got ndarray of shape (4, 6, 2)": (COLORS[0, :, :, :2], 0),
    "int64 of shape (4, 6, 3)": (COLORS[0].astype(np.int64), 0),
    "(3, 4, 6) uint8 like the first row, got (3, 3, 6) uint8. Add the option size=N": (
        Image.fromarray(COLORS[0, :3]),
        0,
    ),
    "(3, 4, 6) uint8 like the first row, got (4, 6, 3) float32": (COLORS[0].astype(float), 0),
    "have no defined white level": (Image.fromarray(COLORS[0, :, :, 0].astype(np.float32)), 0),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_named_or_skipped(imported, what):
    rows = [(image, label) for image, label in zip(COLORS, LABELS, strict=True)]
    rows[7] = BAD[what]
    with pytest.raises(UserError) as caught:
        imported((Items(rows), Items(rows[:2])))
    assert what in str(caught.value)
    assert str(caught.value).startswith("somebody:data, train split, row 7")
    data = imported((Items(rows), Items(rows[:2])), skip_bad=True)
    assert torch.equal(data.train.inputs, chw(np.delete(COLORS, 7, 0)))
    assert data.train.targets.tolist() == LABELS[:7] + LABELS[8:]
    assert len(data.train.skipped) == 1
    assert what in data.train.skipped[0]


def test_images_that_cannot_be_decoded_are_named(imported, tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(CHANCE.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with (
        Image.open(path) as cut,
        pytest.raises(UserError, match="row 0: the image cannot be dec"),
    ):
        imported(Items([(cut, 0)]))


def test_integers_that_float32_cannot_hold_raise_an_error(imported):
    with pytest.raises(UserError, match="numbers that float32 holds"):
        imported(Items([([2**24 + 1], 0)]))


def test_if_no_row_is_left_the_first_error_is_shown(imported):
    with pytest.raises(UserError, match=r"none of 2 rows can be read\. .*row 0: cannot be read"):
        imported(Items([ValueError("a"), ValueError("b")]), skip_bad=True)
    with pytest.raises(UserError, match="none of 0 rows"):
        imported(Items([]))


def test_a_class_without_a_name_raises_an_error(imported):
    with pytest.raises(UserError, match="one of the 1 classes \\(cat\\), got class 1"):
        imported(images(COLORS, classes=["cat"]))


@pytest.mark.parametrize("found", [3, None, {1}, (x for x in "ab"), Stream()])
def test_objects_that_are_not_data_sets_raise_an_error(imported, found):
    with pytest.raises(UserError, match=r"expected a data set with len\(d\) and d\[row\]"):
        imported(found)


def test_inputs_larger_than_in_memory_are_read_when_they_are_needed(imported):
    rows = [*zip(COLORS, LABELS, strict=True)]
    rows[2] = ValueError("lost")
    data = imported(Items(rows), in_memory=10 * 72 - 1, skip_bad=True, test_fraction=0.3)
    assert not isinstance(data.train.inputs, torch.Tensor)
    assert data.train.inputs.shape == (6, 3, 4, 6)
    assert data.train.inputs.dtype == torch.uint8
    assert (len(data.train.skipped), len(data.test.skipped)) == (1, 0)
    known = {
        image.numpy().tobytes(): label for image, label in zip(chw(COLORS), LABELS, strict=True)
    }
    read = pickle.loads(pickle.dumps(data.train.inputs)).read([5, 0])
    assert read.kept.tolist() == [0, 1]
    assert [known[image.numpy().tobytes()] for image in read.inputs] == data.train.targets[
        [5, 0]
    ].tolist()
    in_memory = imported(Items(rows), in_memory=10 * 72, skip_bad=True, test_fraction=0.3)
    assert torch.equal(in_memory.train.inputs[[5, 0]], read.inputs)


def test_a_stored_row_that_becomes_unreadable_is_skipped_or_raises_an_error(imported):
    for skip_bad in (True, False):
        rows = Items(zip(COLORS, LABELS, strict=True))
        data = imported((rows, rows), in_memory=0, skip_bad=skip_bad)
        rows.items[4] = OSError("gone")
        if not skip_bad:
            with pytest.raises(UserError, match="row 4: cannot be read"):
                data.train.inputs.read([3, 4, 5])
            continue
        read = data.train.inputs.read([3, 4, 5])
        assert read.kept.tolist() == [0, 2]
        assert torch.equal(read.inputs, chw(COLORS[[3, 5]]))
        assert "OSError: gone" in read.skipped[0]


def failing():
    raise RuntimeError("no files")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("nowhere_at_all:data", "nowhere_at_all cannot be imported (ModuleNotFoundError"),
        ("somebody:dato", "there is no name in somebody 'dato'. Did you mean 'data'?"),
        ("somebody", "expected MODULE:NAME"),
        ("somebody:", "expected MODULE:NAME"),
        ("somebody:failing", "somebody:failing() failed (RuntimeError: no files)"),
    ],
)
def test_an_import_path_that_does_not_exist_raises_with_its_last_existing_part(
    module, tmp_path, where, wanted
):
    module("somebody", data=images(COLORS), failing=failing)
    with pytest.raises(UserError) as caught:
        load_imported(where, {}, LoadOptions(tmp_path))
    assert wanted in str(caught.value)


@pytest.mark.parametrize("load", [load_imported, load_hugging_face, load_torchvision])
def test_an_unknown_option_raises_an_error_with_the_nearest(load, tmp_path):
    with pytest.raises(UserError, match=r"'sise'. Did you mean 'size'"):
        load("somebody:data", {"sise": "3"}, LoadOptions(tmp_path))


# Hugging Face's library, as far as it is used: load_dataset gives a dict of splits; a split has
# features, select_columns, a length, and rows that are dicts.


class Feature:
    def __init__(self, names=None):
        if names:
            self.names = names


class ImageFeature(Feature):
    pass


class ClassLabel(Feature):
    pass


class Value(Feature):
    pass


class Table:
    def __init__(self, features, columns):
        self.features, self.columns = features, columns

    def select_columns(self, names):
        return Table(
            {name: self.features[name] for name in names},
            {name: self.columns[name] for name in names},
        )

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row):
        return {name: column[row] for name, column in self.columns.items()}


@pytest.fixture
def hugging_face(module, tmp_path):
    """Return a function that loads splits as if the library had them."""

    def load(splits, options=None, **wanted):
        asked = []

        def load_dataset(name, config=None):
            asked.append((name, config))
            if isinstance(splits, Exception):
                raise splits
            return splits

        module(
            "datasets",
            load_dataset=load_dataset,
            Image=ImageFeature,
            ClassLabel=ClassLabel,
            Value=Value,
        )
        data = load_hugging_face("me/flowers", options or {}, LoadOptions(tmp_path, **wanted))
        assert asked == [("me/flowers", (options or {}).get("config"))]
        return data

    return load


def table(rows, **more):
    features = {"id": Value(), "img": ImageFeature(), "kind": ClassLabel(["cat", "dog"])} | {
        name: ClassLabel(["x", "y", "z"]) for name in more
    }
    columns = {
        "id": [f"{row}" for row in rows],
        "img": [Image.fromarray(COLORS[row]) for row in rows],
        "kind": [LABELS[row] for row in rows],
    } | {name: [value] * len(rows) for name, value in more.items()}
    return Table(features, columns)


def test_columns_and_splits_are_found_by_their_types_and_names(hugging_face):
    data = hugging_face({"train": table(range(6)), "test": table([7, 8]), "validation": table([9])})
    assert torch.equal(data.train.inputs, chw(COLORS[:6]))
    assert torch.equal(data.test.inputs, chw(COLORS[7:9]))
    assert torch.equal(data.validation.inputs, chw(COLORS[9:]))
    assert (data.classes, data.test.targets.tolist()) == (("cat", "dog"), [1, 0])


def test_a_validation_split_is_the_test_split_if_there_is_no_other(hugging_face):
    data = hugging_face({"train": table(range(6)), "validation": table([7, 8])})
    assert (len(data.train), len(data.test), data.validation) == (6, 2, None)
    data = hugging_face({"train": table(range(10))}, test_fraction=0.4)
    assert (len(data.train), len(data.test)) == (6, 4)
    data = hugging_face({"full": table(range(10))})
    assert (len(data.train), len(data.test)) == (8, 2)


def test_options_name_config_splits_and_columns(hugging_face):
    splits = {"a": table(range(6), fine=2), "b": table([7, 8], fine=0), "c": table([9], fine=1)}
    options = {"train": "b", "test": "a", "validation": "c", "label": "fine", "config": "big"}
    data = hugging_face(splits, options)
    assert data.classes == ("x", "y", "z")
    splits = (data.train, data.test, data.validation)
    assert [split.targets.tolist() for split in splits] == [[0] * 2, [2] * 6, [1]]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, r"column of type ClassLabel, got 2 among id \(Value\), img \(Image.*label=COLUMN"),
        ({"label": "fime"}, "hf:me/flowers: there is no column 'fime'. Did you mean 'fine'"),
        ({"label": "id"}, "split train, row 0, target: .* got the text '0'"),
        ({"train": "tran"}, "no split of hf:me/flowers 'tran'. Did you mean 'train'"),
        (
            {"train": "train", "test": "train"},
            "expected different splits for train, test and validation",
        ),
    ],
)
def test_ambiguous_columns_and_splits_raise_with_the_option(hugging_face, options, wanted):
    with pytest.raises(UserError, match=wanted):
        hugging_face({"train": table(range(6), fine=1), "test": table([7], fine=1)}, options)


def test_several_splits_with_other_names_raise_an_error(hugging_face):
    with pytest.raises(UserError, match=r"expected a split train, got a, b\. train=NAME"):
        hugging_face({"a": table(range(6)), "b": table([7, 8])})


def test_an_error_of_the_library_is_shown_in_one_line(hugging_face):
    with pytest.raises(
        UserError,
        match=r"^hf:me/flowers cannot be loaded \(ValueError: no such config",
    ):
        hugging_face(ValueError("no\n such config"))


@pytest.mark.parametrize(
    ("load", "library"), [(load_hugging_face, "datasets"), (load_torchvision, "torchvision")]
)
def test_a_missing_library_raises_an_error_with_the_command(monkeypatch, tmp_path, load, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=f"requires the library {library}, .*pip install {library}"):
        load("CIFAR10", {}, LoadOptions(tmp_path))


# torchvision's classes take their splits in one of two ways, or have one split only.


class ByTrain(Items):
    def __init__(self, root, train=True, transform=None, target_transform=None, download=False):
        assert not download
        if not Path(root, "batches").exists():
            raise RuntimeError("Dataset not found or corrupted. You can use download=True")
        rows = range(6) if train else range(6, 10)
        super().__init__(((Image.fromarray(COLORS[k]), LABELS[k]) for k in rows), ["cat", "dog"])


class BySplit(Items):
    def __init__(self, root, split="train", transform=None, download=False):
        rows = {"train": range(6), "val": range(6, 8), "odd": range(8, 10)}
        if split not in rows:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        super().__init__((Image.fromarray(COLORS[k]), LABELS[k]) for k in rows[split])


class Whole(Items):
    def __init__(self, size=10, transform=None):
        super().__init__((Image.fromarray(COLORS[k]), LABELS[k]) for k in range(size))


@pytest.fixture
def torchvision(module, tmp_path):
    names = {"ByTrain": ByTrain, "BySplit": BySplit, "Whole": Whole}
    sets = module("torchvision.datasets", **names, __all__=tuple(names))
    module("torchvision", datasets=sets)
    return lambda name, options=None: load_torchvision(name, options or {}, LoadOptions(tmp_path))


def test_the_same_split_for_training_and_test_raises_an_error(torchvision):
    with pytest.raises(UserError, match=r"expected different splits .* got train=test, test=test"):
        torchvision("BySplit", {"train": "test"})


def test_splits_are_chosen_by_train_true_and_false(torchvision, tmp_path):
    (tmp_path / "batches").touch()
    data = torchvision("ByTrain")
    assert torch.equal(data.train.inputs, chw(COLORS[:6]))
    assert torch.equal(data.test.inputs, chw(COLORS[6:]))
    assert data.classes == ("cat", "dog")


def test_splits_are_chosen_by_their_names(torchvision):
    data = torchvision("BySplit", {"test": "val", "validation": "odd"})
    assert torch.equal(data.test.inputs, chw(COLORS[6:8]))
    assert torch.equal(data.validation.inputs, chw(COLORS[8:]))
    assert data.classes == ("0", "1")


def test_a_torchvision_class_with_one_split_is_split(torchvision):
    data = torchvision("Whole", {"size": "2"})
    assert (len(data.train), len(data.test), data.train.inputs.shape[2:]) == (8, 2, (2, 2))


def test_missing_files_raise_with_the_folder(torchvision, tmp_path):
    with pytest.raises(UserError, match=f"under {tmp_path} .*not found or corrupted"):
        torchvision("ByTrain")


@pytest.mark.parametrize(
    ("name", "options", "wanted"),
    [
        ("ByTrian", {}, "no data set of torchvision 'ByTrian'. Did you mean 'ByTrain'"),
        ("BySplit", {}, "no test split .*Unknown value 'test'.*test=NAME names another split"),
        ("ByTrain", {"test": "val"}, "has no named splits, got test="),
    ],
)
def test_unknown_names_of_torchvision_raise(torchvision, name, options, wanted):
    with pytest.raises(UserError, match=wanted):
        torchvision(name, options)


def test_splits_that_number_their_classes_differently_raise_an_error(imported):
    train = images(COLORS, classes=["cat", "dog"])
    fewer = images(COLORS, [0] * 10, classes=["cat"])  # numbered alike
    assert imported((train, fewer)).classes == ("cat", "dog")
    for classes in (["cat", "eel"], ["dog", "cat"], ["dog"]):
        test = images(COLORS, [0] * 10, classes=classes)
        with pytest.raises(UserError, match=rf"test split: .* got {', '.join(classes)}\."):
            imported((train, test))
    assert imported((images(COLORS), train)).classes == ("0", "1")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e39])
def test_inputs_that_are_not_finite_are_named_or_skipped(imported, bad):
    rows = [(np.array([float(k), 1.0]), k % 2) for k in range(10)]
    rows[5][0][0] = bad
    with pytest.raises(UserError, match="row 5: expected finite numbers that float32 holds"):
        imported(Items(rows))
    data = imported(Items(rows), skip_bad=True)
    assert len(data.train) + len(data.test) == 9


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda k: float(k % 2), "floats with 2 different integers"),
        (lambda k: np.eye(2, dtype="f")[k % 2], "one 1 in each row"),
    ],
)
def test_targets_that_may_be_classes_are_doubted(imported, target, words):
    rows = [(np.array([float(k), 1.0]), target(k)) for k in range(20)]
    (note,) = [one for one in imported(Items(rows)).notes if one.doubtful]
    assert words in note.text


def test_quantities_are_not_read_as_hundreds_of_thousands_of_classes(module, tmp_path):
    prices = [500_000 + 1000 * k for k in range(10)]
    module("houses", data=images(COLORS[..., :3], labels=prices))
    with pytest.raises(
        UserError, match=r"expected labels from 0 to .*, got 509000\. If they are quantities, make"
    ):
        load_imported("houses:data", {}, LoadOptions(tmp_path))


@pytest.mark.parametrize("classes", [3, "abc", {"dog": 1, "cat": 0}])
def test_classes_that_are_no_list_of_names_are_refused(module, tmp_path, classes):
    module("counted", data=images(COLORS[..., :3], classes=classes))
    with pytest.raises(UserError, match=f"expected .* a list of names.*{type(classes).__name__}"):
        load_imported("counted:data", {}, LoadOptions(tmp_path))

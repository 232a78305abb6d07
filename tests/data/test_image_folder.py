import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from vicinal.data import Note, load
from vicinal.errors import UserError


def put(folder, names, value, *, size=(4, 4)):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), value + k, np.uint8)).save(folder / name)


def numbers(split):
    """The value that each image is filled with."""
    return split.read(range(len(split))).inputs[:, 0, 0, 0].tolist()


@pytest.fixture
def pets(tmp_path):
    """Two classes in splits of their own, with different formats and a folder within a class."""
    for base, split in enumerate(("train", "val", "test")):
        put(tmp_path / "pets" / split / "dog", ["b.png", "a.bmp"], 100 * base + 10)
        put(tmp_path / "pets" / split / "cat", ["1.png"], 100 * base)
        put(tmp_path / "pets" / split / "cat" / "more", ["0.png"], 100 * base + 1)
    return tmp_path


@pytest.mark.parametrize("in_memory", [0, 10**9])
def test_splits_and_classes_are_folders_in_the_order_of_their_names(pets, in_memory):
    data = load("folder:pets", root=pets, in_memory=in_memory)
    assert data.classes == ("cat", "dog")
    assert numbers(data.train) == [0, 1, 11, 10]
    assert data.train.targets.tolist() == [0, 0, 1, 1]
    assert numbers(data.validation) == [100, 101, 111, 110]
    assert numbers(data.test) == [200, 201, 211, 210]
    assert isinstance(data.train.inputs, torch.Tensor) == (in_memory > 0)


def test_val_is_the_test_split_if_there_is_no_other(pets):
    (pets / "pets" / "test").rename(pets / "away")
    data = load("folder:pets", root=pets)
    assert numbers(data.test) == [100, 101, 111, 110]
    assert data.validation is None


def test_folders_without_splits_are_split_by_the_seed_with_equal_shares(tmp_path):
    for k, name in enumerate(("a", "b")):
        put(tmp_path / name, [f"{j:02d}.png" for j in range(10)], 100 * k)
    first, again, other = (load(f"folder:{tmp_path}", seed=s, test_fraction=0.3) for s in (0, 0, 1))
    assert first.test.targets.bincount().tolist() == [3, 3]
    assert sorted(numbers(first.train) + numbers(first.test)) == [*range(10), *range(100, 110)]
    assert numbers(first.test) == numbers(again.test)
    assert numbers(first.test) != numbers(other.test)


def test_hidden_files_are_skipped(pets):
    (pets / "pets" / "train" / "cat" / ".DS_Store").write_bytes(b"no image")
    (pets / "pets" / "train" / ".cache").mkdir()
    assert len(load("folder:pets", root=pets).train) == 4


def test_classes_can_be_chosen(pets):
    (pets / "pets" / "train" / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: expected images, got none"):
        load("folder:pets", root=pets)
    data = load("folder:pets?classes=dog,cat", root=pets)
    assert data.classes == ("dog", "cat")
    with pytest.raises(UserError, match=r"has no class cow \(it has: cat, dog, empty\)"):
        load("folder:pets?classes=dog,cow", root=pets)


def test_a_class_that_is_not_in_the_training_split_raises_an_error(pets):
    put(pets / "pets" / "test" / "cow", ["a.png"], 0)
    with pytest.raises(UserError, match=r"test has the class cow, which is not in .*train"):
        load("folder:pets", root=pets)


def test_a_class_that_is_not_in_the_test_split_is_noted_as_doubtful(pets):
    os.rename(pets / "pets" / "test" / "cat", pets / "gone")
    data = load("folder:pets", root=pets)
    assert set(data.test.targets.tolist()) == {1}
    assert Note("the test split has no example of 1 of 2 classes: cat", True) in data.notes


def test_a_class_too_small_to_split_raises_an_error_with_its_name(tmp_path):
    put(tmp_path / "a", [f"{k}.png" for k in range(9)], 0)
    put(tmp_path / "rare", ["0.png"], 0)
    with pytest.raises(
        UserError, match=r"so that both splits have every class\. The smallest class, rare, has 1\."
    ):
        load(f"folder:{tmp_path}")


def test_images_that_cannot_be_read_are_named_or_skipped(pets):
    bad = pets / "pets" / "train" / "cat" / "2.png"
    bad.write_bytes((pets / "pets" / "train" / "cat" / "1.png").read_bytes()[:40])
    (pets / "pets" / "train" / "dog" / "notes").write_text("no image")
    (pets / "pets" / "train" / "dog" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"cat/2\.png: the image cannot be decoded"):
        load("folder:pets", root=pets)
    split = load("folder:pets", root=pets, skip_bad=True).train
    assert numbers(split) == [0, 1, 11, 10]
    assert split.targets.tolist() == [0, 0, 1, 1]
    assert [sentence.split(": ")[0].split("/")[-1] for sentence in split.skipped] == [
        "2.png",
        "notes",
    ]
    notes = load("folder:pets", root=pets, skip_bad=True).notes
    text = "1 file that is no image in class folders, not read, such as dog/notes.txt"
    assert Note(text, doubtful=True) in notes


def test_images_of_many_sizes_need_a_size(tmp_path):
    put(tmp_path / "a", [f"{k}.png" for k in range(5)], 0, size=(6, 4))
    put(tmp_path / "b", [f"{k}.png" for k in range(5)], 0, size=(4, 9))
    with pytest.raises(
        UserError, match=r"b/.\.png: expected an image of 6x4x3 .* Add the option size=N"
    ):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}?size=3&channels=1")
    assert data.train.inputs.shape == (8, 1, 3, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "expected two or more folders, one per class, got none"),
        (
            lambda root: put(root / "a", ["a.png"], 0),
            "expected two or more folders, .* got one, a",
        ),
        (
            lambda root: (root / "train").mkdir(),
            "expected folders train and test .or val., got train. .*test=FOLDER",
        ),
        (
            lambda root: (root / "test").mkdir(),
            "expected folders train and test .or val., got test. .*train=FOLDER",
        ),
    ],
)
def test_folders_that_are_not_classes_raise(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        load(f"folder:{tmp_path}")


def test_a_file_instead_of_the_folder_raises_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"expected a folder with one folder per class, got a file"):
        load("folder:file", root=tmp_path)


def test_links_to_a_folder_above_are_not_followed_forever(pets):
    (pets / "pets" / "train" / "cat" / "loop").symlink_to(pets / "pets" / "train")
    assert len(load("folder:pets", root=pets).train) == 4


def test_a_pipe_is_not_waited_for(pets):
    os.mkfifo(pets / "pets" / "train" / "cat" / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png is not a file"):
        load("folder:pets", root=pets)


def test_a_class_that_is_chosen_twice_raises_an_error(pets):
    with pytest.raises(UserError, match=r"classes=cat,dog,cat: cat is repeated"):
        load("folder:pets?classes=cat,dog,cat", root=pets)


def test_a_split_without_readable_images_raises_an_error(pets):
    for path in (pets / "pets" / "test").rglob("*.*"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of 4 images can be read\. .*cannot be decoded"):
        load("folder:pets", root=pets, skip_bad=True)


def test_folders_within_a_class_are_read_in_the_order_of_their_names(tmp_path):
    for split in ("train", "test"):
        put(tmp_path / split / "b", ["0.png"], 0)
        for value, name in ((30, "z"), (20, "m"), (10, "c")):
            put(tmp_path / split / "a" / name, ["0.png"], value)
    assert numbers(load(f"folder:{tmp_path}").train) == [10, 20, 30, 0]


@pytest.mark.parametrize("place", ["", "test"])
def test_images_outside_of_the_class_folders_are_counted(pets, place):
    where = pets / "pets" / place
    put(where, ["a.png", "b.PNG"], 9)
    (where / ".hidden.png").touch()
    (where / "notes.txt").touch()
    doubts = [note.text for note in load("folder:pets", root=pets).notes if note.doubtful]
    text = f"2 images in {where} are in no class folder and are not read, such as a.png"
    assert text in doubts


def test_a_folder_that_an_option_names_is_used_for_one_split_only(pets):
    (pets / "pets" / "test").rename(pets / "pets" / "unlabeled")
    data = load("folder:pets?test=val", root=pets)
    assert numbers(data.test) == [100, 101, 111, 110]
    assert data.validation is None
    with pytest.raises(UserError, match=r"different folders .* got train=train, test=train"):
        load("folder:pets?test=train&train=train", root=pets)
    with pytest.raises(UserError, match=r"different folders .* train=val, test=val"):
        load("folder:pets?train=val&test=val", root=pets)


def test_names_of_folders_in_options_can_be_percent_encoded(tmp_path):
    for split in ("tr & in", "a,b"):
        for k, name in enumerate(("R&D", "x,y", "100%")):
            put(tmp_path / split / name, ["1.png", "2.png"], 10 * k)
    spec = f"folder:{tmp_path}?train=tr %26 in&test=a%2Cb&classes=R%26D,x%2Cy,100%25"
    assert load(spec).classes == ("R&D", "x,y", "100%")


def test_classes_that_differ_only_in_spelling_are_doubted(tmp_path):
    for name in ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"):
        put(tmp_path / "one" / name, ["1.png", "2.png"], 9)
    (note,) = [
        one
        for one in load(f"folder:{tmp_path}/one", test_fraction=0.5).notes
        if "one class" in one.text
    ]
    assert note.doubtful
    put(tmp_path / "two" / "train" / "Dog", ["1.png"], 9)
    put(tmp_path / "two" / "train" / "cat", ["1.png"], 19)
    put(tmp_path / "two" / "test" / "dog", ["1.png"], 9)
    with pytest.raises(UserError, match=r"class dog, which .* Dog differs from it only in upper"):
        load(f"folder:{tmp_path}/two")


def test_a_validation_folder_is_not_the_test_split(pets):
    (pets / "pets" / "test").rename(pets / "away")
    with pytest.raises(UserError, match=r"expected a test split next to validation=val, got none"):
        load("folder:pets?validation=val", root=pets)


def test_a_folder_whose_name_looks_encoded_is_found(pets):
    (pets / "pets" / "train").rename(pets / "pets" / "tr%41in")
    data = load("folder:pets?train=tr%41in", root=pets)
    assert numbers(data.train) == [0, 1, 11, 10]


def test_classes_that_are_named_like_splits_are_read_if_all_are_named(tmp_path):
    for k, name in enumerate(("valid", "invalid")):
        (tmp_path / name).mkdir()
        for n in range(4):
            Image.new("RGB", (8, 8), (90 * k, n, 0)).save(tmp_path / name / f"{n}.png")
    with pytest.raises(
        UserError, match=r"If valid is a class, list all classes in the source: classes=A,B"
    ):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}?classes=valid,invalid")
    assert data.classes == ("valid", "invalid")
    assert len(data.train) + len(data.test) == 8


def test_classes_next_to_splits_that_have_them_do_not_replace_the_splits(pets):
    expected = load("folder:pets", root=pets)
    for name in ("cat", "dog"):
        shutil.copytree(pets / "pets" / "train" / name, pets / "pets" / name)
    data = load("folder:pets?classes=cat,dog", root=pets)
    assert torch.equal(data.test.inputs, expected.test.inputs)
    assert len(data.validation) == len(expected.validation)


def test_folders_of_splits_may_be_elsewhere_or_nested(pets):
    elsewhere = pets / "elsewhere"
    (pets / "pets" / "test").rename(elsewhere)
    data = load(f"folder:pets?test={elsewhere}", root=pets)
    assert numbers(data.test) == [200, 201, 211, 210]
    (pets / "pets" / "images").mkdir()
    for split in ("train", "val"):
        (pets / "pets" / split).rename(pets / "pets" / "images" / split)
    data = load("folder:pets?train=images/train&test=images/val", root=pets)
    assert numbers(data.test) == [100, 101, 111, 110]
    assert not [note.text for note in data.notes if note.doubtful and "not read" in note.text]


@pytest.mark.parametrize("seed", [0, 32, 52])
def test_the_most_frequent_size_is_that_of_all_if_bad_images_are_skipped(tmp_path, seed):
    for name, base in (("cat", 0), ("dog", 100)):
        put(tmp_path / "pets" / name, [f"{k}.png" for k in range(6)], base)
    put(tmp_path / "pets" / "cat", ["7.png"], 7, size=(4, 5))
    data = load("folder:pets", root=tmp_path, skip_bad=True, seed=seed, test_fraction=0.5)
    assert len(data.train) + len(data.test) == 12
    assert data.train.inputs.shape[1:] == (3, 4, 4)

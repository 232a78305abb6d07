import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from vicinal.data import load, recognized
from vicinal.data.formats.suggested_size import suggested_size
from vicinal.errors import UserError


def images(folder, sizes=((40, 40),), classes=("cat", "dog"), each=3):
    """Write images of each class, whose sizes repeat."""
    for label in classes:
        (folder / label).mkdir(parents=True)
        for k in range(each):
            Image.new("RGB", sizes[k % len(sizes)], (k, 9, 0)).save(folder / label / f"{k}.png")
    return folder


def spec_of(text, root):
    return recognized(text, root=root).spec


def test_class_folders_of_images_are_a_folder_data_set(tmp_path):
    images(tmp_path / "pets")
    assert spec_of("pets", tmp_path) == "folder:pets"
    assert spec_of(f"{tmp_path}/pets/", tmp_path) == f"folder:{tmp_path}/pets/"
    assert spec_of("pets?channels=1", tmp_path) == "folder:pets?channels=1"
    data = load("pets", root=tmp_path, test_fraction=0.4)
    assert (data.classes, data.train.inputs.shape[1:]) == (("cat", "dog"), (3, 40, 40))
    assert data.notes[0].text == ("pets was recognized as folder: images in 2 folders, cat, dog")


def test_images_of_different_or_large_sizes_are_resized_with_a_note(tmp_path):
    images(tmp_path / "pets", sizes=((40, 70), (90, 66), (100, 100)))
    data = load("pets", root=tmp_path, test_fraction=0.4)
    assert data.train.inputs.shape[1:] == (3, 64, 64)
    assert data.notes[1].text == (
        "the shorter sides of the images have 40 to 100 pixels, and they are resized and cropped "
        "to 64x64; ?size=N sets another size"
    )
    images(tmp_path / "large", sizes=((80, 80),))
    assert spec_of("large", tmp_path) == "folder:large?size=64"
    assert spec_of("large?size=70", tmp_path) == "folder:large?size=70"
    assert recognized("large", root=tmp_path, largest=80).spec == "folder:large"


@pytest.mark.parametrize("median", [20, 63, 64, 224, 1000])
@pytest.mark.parametrize("largest", [64, 224])
def test_the_suggested_size_follows_its_rule(tmp_path, median, largest):
    sizes = ((median, median + 500), (10, 900), (2000, 1500))
    images(tmp_path, sizes, classes=("a",))
    size, _ = suggested_size(tmp_path, largest=largest)
    slow = min(median, largest)
    while slow > 32 and not (math.log2(slow).is_integer() or slow == 224):
        slow -= 1
    assert size == slow


def test_the_test_split_of_a_folder_is_recognized_too(tmp_path):
    for split in ("train", "val"):
        images(tmp_path / "pets" / split)
    assert spec_of("pets", tmp_path) == "folder:pets"
    assert len(load("pets", root=tmp_path).test) == 6


def test_class_folders_of_recordings_are_commands(tmp_path):
    for word in ("no", "yes"):
        (tmp_path / "words" / word).mkdir(parents=True)
        for k in range(2):
            soundfile.write(tmp_path / "words" / word / f"{k}.flac", np.zeros(800), 8000)
    assert spec_of("words", tmp_path) == "commands:words"
    (tmp_path / "words" / "no").rename(tmp_path / "words" / "train")
    with pytest.raises(UserError, match=r"words: .* got recordings in 2 folders, train, yes"):
        spec_of("words", tmp_path)


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("a,Species,c", "Species"),
        ("target,b,c", "target"),
        ("a,b,price", "price"),
        ("a,b,price & tax?", "price%20%26%20tax%3F"),
        ("a,c,c", "-1"),
    ],
)
def test_the_label_of_a_table_is_guessed_and_shown(tmp_path, header, label):
    rows = "".join(f"{k % 3},{k % 2},{k % 2}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}")
    found = recognized("t.csv", root=tmp_path)
    assert found.spec.replace(" ", "%20") == f"table:t.csv?label={label}"
    # A name is no sure sign if the column is neither the first nor the last one.
    assert found.notes[1].doubtful == (label not in {"target"})
    data = load("t.csv", root=tmp_path)
    assert data.notes[:2] == found.notes
    assert len(data.classes) == (3 if label == "target" else 2)
    if label == "-1":
        return
    # With the preparation of a training, nothing is guessed.
    again = load("t.csv", root=tmp_path, preparation=data.preparation)
    assert torch.equal(again.test.inputs, data.test.inputs)
    assert "guessed" not in " ".join(note.text for note in again.notes)


@pytest.mark.parametrize(("header", "label"), [("a,b,c,", "c"), ("a,c,c,", "2")])
def test_commas_at_the_ends_of_lines_are_no_label(tmp_path, header, label):
    rows = "".join(f"{k % 3},{k % 5},{k % 2},\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"{header}\n{rows}")
    found = recognized("t.csv", root=tmp_path)
    assert found.spec == f"table:t.csv?label={label}"
    assert "guessed the last column with a name, 'c'" in found.notes[1].text
    assert load("t.csv", root=tmp_path).classes == ("0", "1")


def test_a_guessed_label_that_most_rows_lack_is_an_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n" + "1,2,\n" * 5 + "1,2,NA\n" + "1,2,u\n1,2,v\n")
    message = r"the label was guessed, 'c', and is missing in 6 of 8 rows\. Name the label"
    with pytest.raises(UserError, match=message):
        recognized("t.csv", root=tmp_path)


def test_the_guessed_label_is_neither_empty_nor_dropped(tmp_path):
    rows = "".join(f"{k % 3},{k % 5},{k % 2},\n" for k in range(60))
    (tmp_path / "t.csv").write_text(rows)
    found = recognized("t.csv?header=no", root=tmp_path)
    assert found.spec == "table:t.csv?header=no&label=2"
    assert load("t.csv?header=no", root=tmp_path).classes == ("0", "1")
    (tmp_path / "t.csv").write_text("a,b,c,z\n" + rows.replace(",\n", ",9\n"))
    for word in ("z", "-1", "3"):
        found = recognized(f"t.csv?drop={word}", root=tmp_path)
        assert found.spec == f"table:t.csv?drop={word}&label=c"
    (tmp_path / "t.csv").write_text("a,b,class,target\n" + rows.replace(",\n", ",9\n"))
    found = recognized("t.csv?drop=target", root=tmp_path)
    assert found.spec == "table:t.csv?drop=target&label=class"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2,3\n4,5,6\n", r"first row has numbers such as '1'.*\?header=no&label=-1"),
        ("a,b,\n1,2,u\n3,4,v\n", r"the last column has no name. .*\?label=2 if it is the label"),
        ("class,target\n1,2\n", r"expected one column .* got class, target. Write table:"),
        (
            "review,label\nnot what I hoped for at all,0\nI like it a lot and more,1\n",
            r"got texts in 'review'. The label 'label' was guessed: .*label=label&drop=review\.",
        ),
        ("class,a,class\n1,2,u\n2,3,v\n", r"got class, class. Write table:.*t.csv\?label=0, or"),
    ],
)
def test_a_label_that_cannot_be_guessed_safely_is_an_error(tmp_path, text, sentence):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        spec_of("t.csv", tmp_path)
    assert spec_of("t.csv?header=no", tmp_path) == "table:t.csv?header=no&label=-1"


@pytest.mark.parametrize(
    ("files", "spec"),
    [
        (["cifar-10-batches-py/data_batch_1"], "cifar10:x"),
        (["cifar-100-python.tar.gz"], "cifar100:x"),
        (["train-images-idx3-ubyte.gz"], "mnist:x"),
        (["emnist-letters-train-images-idx3-ubyte.gz"], "emnist:x"),
        (["a_train.rec", "a_test.rec", "a_train.idx"], "rec:x"),
    ],
)
def test_known_files_in_a_folder_are_recognized(tmp_path, files, spec):
    for file in files:
        path = tmp_path / "x" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert spec_of("x", tmp_path) == spec


def test_files_and_the_folder_of_an_archive_are_recognized(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").touch()
    (tmp_path / "fashion").mkdir()
    (tmp_path / "fashion" / "train-images-idx3-ubyte").touch()
    for name in ("a.npz", "b,c.rec", "cifar-100-python.tar.gz"):
        (tmp_path / name).touch()
    for text, spec in {
        "cifar-10-batches-py": "cifar10:cifar-10-batches-py",
        "fashion": "fashion-mnist:fashion",
        "a.npz": "npz:a.npz",
        "b,c.rec": "rec:b%2Cc.rec",
        "cifar-100-python.tar.gz": "cifar100:cifar-100-python.tar.gz",
    }.items():
        assert spec_of(text, tmp_path) == spec


def test_a_path_with_a_question_mark_is_quoted(tmp_path):
    images(tmp_path / "pets?size=9")
    assert spec_of("pets?size=9", tmp_path) == "folder:pets%3Fsize%3D9"
    assert len(load("pets?size=9", root=tmp_path, test_fraction=0.4).classes) == 2
    images(tmp_path / "what?")
    assert spec_of("what?", tmp_path) == "folder:what%3F"
    (tmp_path / "what?.csv").write_text("a,label\n1,u\n2,v\n")
    assert spec_of("what?.csv", tmp_path) == "table:what%3F.csv?label=label"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"got no files in 0 folders. Put the images"),
        (["a.jpg", "b.jpg"], r"got 2 image files in 0 folders. Put the images"),
        (["cat/a.txt", "dog/b.txt"], r"got 2 text files in 2 folders"),
        (["a.csv", "b/c.pdf"], r"got 1 table files and 1 other files .* write its path"),
        (["a/1.png", "b/2.wav"], r"only the images, write folder:"),
        (
            ["cifar-10-batches-py/x", "a.rec"],
            r"got files of cifar10 and rec. Write cifar10:PATH or",
        ),
    ],
)
def test_a_folder_that_is_no_data_set_is_an_error_with_what_was_found(tmp_path, files, sentence):
    folder = tmp_path / "x"
    folder.mkdir()
    for file in files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    with pytest.raises(UserError, match=sentence):
        spec_of("x", tmp_path)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("a.txt", r"got a text file. If it is a table, write table:.*a.txt\?label=COLUMN"),
        ("a.png", r"got one image. Pass the folder"),
        ("a.zip", r"got an archive. Extract it"),
        ("a.exe", r"got a file of another kind. vicinal data list"),
    ],
)
def test_a_file_that_is_no_data_set_is_an_error_with_what_to_try(tmp_path, file, sentence):
    (tmp_path / file).touch()
    with pytest.raises(UserError, match=sentence):
        spec_of(file, tmp_path)


def test_sources_and_modules_are_returned_as_they_are_and_typing_errors_are_named(tmp_path):
    (tmp_path / "digits").mkdir()
    for text in ("digits", "table:a.csv?label=b", "my.module:data", "my.module"):
        assert recognized(text, root=tmp_path) == (text, ())
    with pytest.raises(UserError, match=r"^there is no data source, file or folder 'digit'. Did y"):
        spec_of("digit", tmp_path)
    (tmp_path / "cats.csv").touch()
    for text in ("digit.npz", "flowers/", "a/b.c", str(tmp_path / "cars.csv")):
        with pytest.raises(UserError, match=rf"^there is no file or folder {text}") as caught:
            spec_of(text, tmp_path)
    assert f"Did you mean '{tmp_path / 'cats.csv'}'?" in str(caught.value)


def test_data_info_reads_a_plain_path(vicinal, tmp_path):
    images(tmp_path / "pets", sizes=((80, 90),))
    done = vicinal("data", "info", tmp_path / "pets", "--test-fraction", "0.4")
    assert done.exit_code == 0
    assert "was recognized as folder" in " ".join(done.output.split())


def test_links_in_a_circle_end(tmp_path):
    images(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "again").symlink_to(tmp_path / "pets", target_is_directory=True)
    assert spec_of("pets", tmp_path) == "folder:pets"
    assert suggested_size(Path(tmp_path / "pets"))[0] is None


def test_sizes_are_those_of_images_that_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    images(tmp_path / "pets", sizes=((60, 40),))
    Image.new("RGB", (40, 60)).save(tmp_path / "pets" / "cat" / "turned.png", exif=exif)
    assert spec_of("pets", tmp_path) == "folder:pets"
    Image.new("RGB", (60, 40)).save(tmp_path / "pets" / "cat" / "turned.png", exif=exif)
    assert spec_of("pets", tmp_path) == "folder:pets?size=32"
    load("pets", root=tmp_path, test_fraction=0.4)
    for name in ("cat", "dog"):
        (tmp_path / "tiffs" / name).mkdir(parents=True)
        for k in range(4):
            tag = exif if k % 2 else Image.Exif()
            Image.new("RGB", (60, 40)).save(tmp_path / "tiffs" / name / f"{k}.tif", exif=tag)
    assert spec_of("tiffs", tmp_path) == "folder:tiffs?size=32"
    load("tiffs", root=tmp_path, test_fraction=0.5)


def test_images_of_floats_with_the_channels_last_are_doubted(tmp_path):
    x = np.random.default_rng(0).random((40, 8, 8, 3), np.float32)
    np.savez(tmp_path / "last.npz", x=x, y=np.arange(40) % 2)
    np.savez(tmp_path / "first.npz", x=x.transpose(0, 3, 1, 2), y=np.arange(40) % 2)
    doubted = {
        name: [
            one.text
            for one in load(f"{name}.npz", root=tmp_path).notes
            if "channels are" in one.text
        ]
        for name in ("last", "first")
    }
    assert "(8, 8, 3) are read as (channels, height, width)" in doubted["last"][0]
    assert not doubted["first"]


def test_the_first_columns_of_coordinates_are_no_label(tmp_path):
    rows = "".join(f"{k % 3},{k % 5},{k % 4},{'ab'[k % 2]}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"x,y,z,activity\n{rows}")
    assert spec_of("t.csv", tmp_path) == "table:t.csv?label=activity"


def test_columns_that_the_source_drops_or_groups_by_are_not_in_the_way_of_the_label(tmp_path):
    text = "it is a very good film"
    rows = "".join(f"{k % 3},{text} {k},{'ab'[k % 2]},{k % 9}\n" for k in range(60))
    (tmp_path / "t.csv").write_text(f"a,review,label,patient\n{rows}")
    for options in ("drop=review", "drop=review,label"):
        found = recognized(f"t.csv?{options}&group=patient", root=tmp_path).spec
        label = "a" if "label" in options else "label"
        assert found == f"table:t.csv?{options}&group=patient&label={label}"

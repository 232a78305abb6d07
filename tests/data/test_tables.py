import csv
import io
import json
import os
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from scipy.io import arff
from sklearn.ensemble import RandomForestClassifier

from vicinal.data import load
from vicinal.data.dataset import LoadOptions
from vicinal.data.tables import uci
from vicinal.data.tables.delimited_text import first_row
from vicinal.data.tables.load_table import load_table
from vicinal.data.tables.read_table import read_table
from vicinal.errors import UserError

CASES = Path(__file__).parents[1] / "cases"

PETS = "size,color,kind\n1,red,cat\n3,blue,dog\n2,red,cat\n5,red,dog\n"


@pytest.fixture
def table(tmp_path):
    """Answer with what loads a table that is given as text or bytes."""

    def load(
        content,
        *,
        name="t.csv",
        test=None,
        skip_bad=False,
        fraction=0.5,
        max_bytes=10**9,
        preparation=None,
        **options,
    ):
        options = {"label": "-1", **options}
        for path, inside in {name: content, f"test_{name}": test}.items():
            if inside is not None:
                raw = inside if isinstance(inside, bytes) else inside.encode()
                (tmp_path / path).write_bytes(raw)
        if test is not None:
            options["test"] = f"test_{name}"
        wanted = LoadOptions(
            tmp_path, 0, fraction, skip_bad, max_bytes=max_bytes, preparation=preparation
        )
        return load_table(name, options, wanted)

    return load


def both(data):
    """All rows of a divided set, sorted."""
    rows = torch.cat([data.train.inputs, data.test.inputs]).tolist()
    targets = torch.cat([data.train.targets, data.test.targets]).tolist()
    return sorted(zip(rows, targets, strict=True))


# The delimiter


@pytest.mark.parametrize("header", ["Temp, C;Humidity, %;y\n", ""])
@pytest.mark.parametrize("decimal", [",", "."])
def test_decimal_commas_are_no_delimiters(table, header, decimal):
    rows = [(k % 7, k % 5, "uv"[k % 2]) for k in range(40)]
    text = header + "".join(f"{a},{b};{b},5;{y}\n" for a, b, y in rows)
    data = table(text, header="yes" if header else "no", decimal=decimal)
    assert data.classes == ("u", "v")
    if decimal == ",":
        a = np.array([a + b / 10 for a, b, _ in rows])
        known = torch.cat([data.train.inputs, data.test.inputs])[:, 0].double()
        assert float(known.max() - known.min()) * a.std() == pytest.approx(np.ptp(a), rel=0.2)
    doubts = [note.text for note in data.notes if note.doubtful and "divided at" in note.text]
    assert len(doubts) == (decimal == ".")  # each row has two commas as well


def test_a_header_of_tabs_with_commas_in_it_is_divided_at_tabs(table):
    text = "city, state, zip\tsize\ty\n" + "".join(f"a\t{k}\t{'uv'[k % 2]}\n" for k in range(20))
    assert table(text, name="t.tsv").classes == ("u", "v")
    bare = "".join(f"a, b, {k}\t{k}\t{'uv'[k % 2]}\n" for k in range(20))
    assert table(bare, name="t.tsv", header="no").classes == ("u", "v")


def test_a_quoted_line_break_in_the_header_is_part_of_a_name(table):
    data = table('"size\nin cm",b,y\n' + "".join(f"{k},{k},{'uv'[k % 2]}\n" for k in range(20)))
    assert data.classes == ("u", "v")
    assert data.preparation["numbers"]["columns"] == ["size\nin cm", "b"]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("", "{a},{b}.5,A{b};B{a},{b},{y}"),  # a semicolon in each row
        ("id,lat;lon,k,y", "{a},1.5;2.{b},3,{y}"),
        ("a,b,y\t", "{a},{b},{y}\t"),  # tabs that fill up cells
        ("a,b,\ty", "{a},{b},\t{y}"),
    ],
)
def test_commas_stay_the_delimiter_beside_a_stray_one(table, header, row):
    lines = [header] * bool(header)
    lines += [row.format(a=k % 7, b=k % 5, y="uv"[k % 2]) for k in range(40)]
    data = table("\n".join(lines) + "\n", header="yes" if header else "no")
    assert data.classes == ("u", "v")
    assert not [note for note in data.notes if "divided at" in note.text]


def test_a_comma_in_each_row_of_a_semicolon_table_is_part_of_a_cell(table):
    text = "Name, Vorname;Alter;y\n" + "".join(f"M{k}, H;{k};{'uv'[k % 2]}\n" for k in range(20))
    assert table(text, drop="Name, Vorname".replace(",", "%2C")).classes == ("u", "v")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b,y\n" + "".join(f"{k % 6},{k % 5},{'uv'[k % 2]}\n" for k in range(40)), ["a", "b"]),
        ("a;b;y\n" + "".join(f"{k};{k},5;{'uv'[k % 2]}\n" for k in range(40)), ["a", "b"]),
        ("".join(f"{k},5 0,{k} {'uv'[k % 2]}\n" for k in range(10, 50)), ["0", "1"]),
    ],
)
def test_a_decimal_comma_leaves_commas_that_are_delimiters(table, text, names):
    data = table(text, decimal=",", header="yes" if "y" in text else "no")
    assert data.classes == ("u", "v")
    assert data.preparation["numbers"]["columns"] == names


def test_quoted_cells_with_decimal_commas_are_divided_at_commas(table):
    text = "".join(f'"{k},5","0,{k}",{"uv"[k % 2]}\n' for k in range(20))
    data = table("a,b,y\n" + text, decimal=",")
    assert (data.classes, data.train.inputs.shape[1]) == (("u", "v"), 2)


def test_rows_of_other_lengths_leave_the_delimiter_that_the_first_row_has_most(table):
    text = "a,b,y\n1,2,u\n3,4,v\n1,2\n1;2,3;4,u\n3,4,v\n1,2,u\n"
    data = table(text, skip_bad=True)
    assert data.classes == ("u", "v")
    assert len(data.train.skipped) == 2


def test_a_single_column_may_have_a_name_of_several_words(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("body mass\n0.5\n2.5\n")
    assert read_table(path, file="t.csv").names == ("body mass",)
    path.write_text("body mass\n0.5 3\n2.5 4\n")
    assert read_table(path, file="t.csv").names == ("body", "mass")


WIDE = " ".join(f"gene{k}" for k in range(20_000))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('"size" "kind"\n' + "".join(f'{k} "a"\n' for k in range(20)), 2),
        ('size city kind\n3 "New York" a\n', 3),
        ('"body mass" kind\n3 a\n4 b\n', 2),
        ('"size" "kind"\n"1" "a"\n', 2),
        (f"{WIDE}\n{' '.join(['1'] * 20_000)}\n", 20_000),
        ("a b y\n" + "1 2\n" * 20 + "1 2 3\n" * 50, 3),
        ("id text label\n" + "".join(f'{k} "a\nb" x\n' for k in range(9)), 3),
        ("id height kind\n" + "".join(f'{k} {60 + k}" x\n' for k in range(9)), 3),
    ],
    ids=[
        *("quoted texts", "two words", "quoted name", "all quoted", "wide", "ragged at first"),
        *("newlines in cells", "inches"),
    ],
)
def test_white_space_divides_quoted_wide_and_ragged_rows(tmp_path, text, columns):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert len(read_table(path, file="t.csv").names) == columns


@pytest.mark.parametrize("mark", [";", ",", "\t", "|"])
@pytest.mark.parametrize("line", ["sep={}\r\n", '"sep={}"\n', "SEP={}\n"])
def test_the_delimiter_that_the_first_line_states_divides_the_cells(table, mark, line):
    rows = ["a b", "c,d;e", "y"], *([f"{k}", '"u;,v"', "no" if k % 2 else "yes"] for k in range(9))
    rows[0][1] = f'"{rows[0][1]}"'
    text = line.format(mark) + "".join(mark.join(row) + "\n" for row in rows)
    data = table(text)
    assert data.classes == ("no", "yes")
    assert data.preparation["numbers"]["columns"] == ["a b"]
    assert data.preparation["categories"]["columns"] == ["c,d;e"]
    with pytest.raises(UserError, match=r"t\.csv row 12 has 4 cells rather than 3"):
        table(text + mark.join("1234") + "\n")


# What becomes of the cells


def test_numbers_are_normalized_by_the_training_split_alone(table):
    data = table("a,b,y\n1,10,u\n3,10,v\n", test="a,b,y\n5,10,u\n2,30,v\n")
    # a: mean 2, deviation 1 (dividing by n). b is constant in the training part.
    assert data.train.inputs.tolist() == [[-1, 0], [1, 0]]
    assert data.test.inputs.tolist() == [[3, 0], [0, 0]]
    assert data.train.inputs.dtype == torch.float32


def test_the_splits_of_one_file_are_normalized_by_its_training_split(table):
    text = "a,y\n" + "".join(f"{k * k},{'uv'[k % 2]}\n" for k in range(40))
    data = table(text, fraction=0.3)
    assert (len(data.train), len(data.test)) == (28, 12)
    assert data.train.inputs.mean().item() == pytest.approx(0, abs=1e-6)
    assert data.train.inputs.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    step = sorted({k * k for k in range(40)})
    back = sorted(torch.cat([data.train.inputs, data.test.inputs]).flatten().tolist())
    # 0 and 1521 are the ends; a straight line brings every other value back.
    scale = 1521 / (back[-1] - back[0])
    assert [(z - back[0]) * scale for z in back] == pytest.approx(step, abs=2e-3)


def test_categories_are_one_hot_and_those_of_the_test_split_alone_are_zeros(table):
    data = table(
        "c,a,y\nred,1,u\nblue,3,v\n,1,u\n?,3,v\n", test="c,a,y\nblue,1,u\ngreen,3,v\nNA,1,u\n"
    )
    # After the number: blue, red, missing.
    assert data.train.inputs[:, 1:].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert data.test.inputs[:, 1:].tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert data.train.inputs[:, 0].tolist() == [-1, 1, -1, 1]


def test_a_category_missing_in_the_test_split_alone_is_zeros(table):
    data = table("c,y\nr,u\nb,v\n", test="c,y\n,u\nr,v\n", label="y")
    assert data.test.inputs.tolist() == [[0, 0], [0, 1]]


def test_missing_numbers_become_the_training_mean(table):
    data = table("a,b,y\n1,?,u\n,?,v\n5,NaN,u\nnull,,v\n", test="a,b,y\nnan,7,u\n3,NA,v\n")
    # The mean of 1 and 5 is 3, the deviation 2; b is missing altogether.
    assert data.train.inputs.tolist() == [[-1, 0], [0, 0], [1, 0], [0, 0]]
    assert data.test.inputs.tolist() == [[0, 0], [0, 0]]


def test_missing_cells_can_be_marked_otherwise(table):
    text = "a,y\n-999,u\n1,v\n3,u\n.,v\n"
    data = table(text, test=text, missing="-999,.")
    assert data.train.inputs.flatten().tolist() == [0, -1, 1, 0]
    assert table(text, test=text, missing="-999", skip_bad=True).train.skipped == (
        "t.csv row 5: expected a number in column 'a', got '.'. Correct it, or list the column in "
        "categories, or add it to the markers of missing values, "
        "missing=-999,..",
    )


def test_columns_that_look_like_numbers_can_be_categories(table):
    text = "zip,a,y\n7,1,u\n3,2,v\n7,3,u\n"
    data = table(text, test=text, categories="zip")
    assert data.train.inputs[:, 1:].tolist() == [[0, 1], [1, 0], [0, 1]]
    again = table(text, test=text, categories="0,-2")
    assert again.train.inputs.shape == (3, 5)


def test_half_numbers_and_half_text_are_categories(table):
    text = "c,y\n1,u\nx,v\n"
    assert table(text, test=text).train.inputs.tolist() == [[1, 0], [0, 1]]


def test_dropped_columns_are_gone_whatever_they_hold(table):
    text = "id,a,y\n1,1,u\nx,3,v\n3,1,u\n4,3,v\n"
    with pytest.raises(UserError, match="'id'"):
        table(text, test=text)
    assert table(text, test=text, drop="id").train.inputs.tolist() == [[-1], [1], [-1], [1]]


def test_a_constant_column_of_fractions_gives_zeros(table):
    data = table("a,b,y\n0.1,1,u\n0.1,2,v\n0.1,3,u\n", test="a,b,y\n0.7,2,u\n")
    assert torch.cat([data.train.inputs, data.test.inputs])[:, 0].tolist() == [0, 0, 0, 0]


# Targets


def test_classes_are_sorted_as_numbers_and_named_as_written(table):
    text = "a,y\n1,10\n2,9\n3,-1\n4,10\n5,9\n6,-1\n"
    data = table(text, test=text)
    assert data.classes == ("-1", "9", "10")
    assert data.train.targets.tolist() == [2, 1, 0, 2, 1, 0]
    assert data.train.targets.dtype == torch.int64


def test_classes_of_text_are_sorted_as_text(table):
    text = "a,y\n1,v10\n2,v9\n3,b\n"
    data = table(text, test=text)
    assert (data.classes, data.train.targets.tolist()) == (("b", "v10", "v9"), [1, 2, 0])


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1", "2", "1", "2"], 2),
        (["1", "2", "3", "2"], 0),  # three different ones in four rows
        (["0.5", "1", "0.5", "1"], 0),
        ([str(k % 20) for k in range(60)], 20),
        ([str(k % 21) for k in range(60)], 0),
        (["yes", "no", "yes", "no"], 2),
    ],
)
def test_the_label_decides_the_task(table, labels, classes):
    text = "a,y\n" + "".join(f"{k},{label}\n" for k, label in enumerate(labels))
    data = table(text, test=text)
    assert len(data.classes) == classes
    if not classes:
        assert data.train.targets.tolist() == [float(label) for label in labels]
        assert data.train.targets.dtype == torch.float32


def test_the_task_can_be_set(table):
    text = "a,y\n1,1\n2,2\n3,1\n4,2\n"
    assert table(text, task="regression").classes == ()
    other = "a,y\n1,1\n2,2\n3,3\n4,4\n"
    assert table(other, test=other, task="classification").classes == ("1", "2", "3", "4")


def test_the_split_is_stratified_and_follows_the_seed(tmp_path):
    rows = "".join(f"{k},{'aaab'[k % 4]}\n" for k in range(80))
    (tmp_path / "t.csv").write_text("x,y\n" + rows)
    one, again, other = (
        load_table("t.csv", {"label": "y"}, LoadOptions(tmp_path, seed, 0.25)) for seed in (0, 0, 1)
    )
    assert one.test.targets.bincount().tolist() == [15, 5]
    assert one.train.targets.bincount().tolist() == [45, 15]
    assert torch.equal(one.test.inputs, again.test.inputs)
    assert not torch.equal(one.test.inputs, other.test.inputs)


# Forms of files


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", PETS),
        ("t.CSV", "\ufeff" + PETS.replace("\n", "\r\n")),
        ("t.csv", "\n" + PETS.replace("\n", "\n\n") + ",,\n"),
        ("t.csv", PETS.replace("\n", "\n   \n")),
        ("t.csv", PETS.replace(",", ";")),
        ("t.tsv", PETS.replace(",", "\t")),
        ("t.data", PETS.replace(",", "  ").replace("\n", " \n")),
        ("t.txt", PETS.replace(",", " , ")),
        ("t.csv", PETS.replace("red", '"red"').replace("\n", "\r")),
    ],
)
def test_every_text_form_gives_the_same(table, name, text):
    data = table(text, test=text, name=name, label="kind")
    a = (8.75 / 4) ** 0.5  # the mean is 2.75, and the squares of the distances sum to 8.75
    want = [[(v - 2.75) / a, blue, 1 - blue] for v, blue in ((1, 0), (3, 1), (2, 0), (5, 0))]
    torch.testing.assert_close(data.train.inputs, torch.tensor(want))
    assert (data.classes, data.train.targets.tolist()) == (("cat", "dog"), [0, 1, 0, 1])


def test_quoted_cells_may_hold_separators_and_line_breaks(table):
    text = 'a,c,y\n1,"x,\ny",u\n2,z,v\n3,"x,\ny",u\n4,z,v\n'
    assert table(text, test=text).train.inputs[:, 1:].tolist() == [[1, 0], [0, 1]] * 2


def test_parquet_keeps_its_types(tmp_path):
    columns = {
        "whole": pa.array([1, 3, None, 3], pa.int16()),
        "real": pa.array([0.1, float("nan"), 0.3, 0.1], pa.float32()),
        "code": pa.array(["1", "2", "1", None]).dictionary_encode(),
        "flag": pa.array([True, False, True, True]),
        "__index_level_0__": pa.array([9, 8, 7, 6]),
        "y": pa.array(["u", "v", "u", "v"]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    data = load_table(
        "t.parquet", {"label": "y", "test": "t.parquet", "missing": "-1"}, LoadOptions(tmp_path)
    )
    whole, real = data.train.inputs[:, :2].T.tolist()
    assert whole == pytest.approx([-(2**0.5), 0.5**0.5, 0, 0.5**0.5])  # mean 7/3, deviation^2 8/9
    assert real == pytest.approx([-(0.5**0.5), 0, 2**0.5, -(0.5**0.5)])
    rest = [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 1]]
    assert data.train.inputs[:, 2:].tolist() == rest


ARFF = """% a comment
@RELATION 'some pets'
@ATTRIBUTE size NUMERIC
@attribute 'its color' {'deep red', blue}
@attribute kind {dog, cat}
@DATA
1, 'deep red', cat
% another
3,blue,dog

?,'deep red',cat
5,?,dog
"""


def test_arff_agrees_with_scipy(table, tmp_path):
    data = table(ARFF, test=ARFF, name="t.arff", label="kind")
    theirs, _ = arff.loadarff(tmp_path / "t.arff")
    size = theirs["size"]
    scaled = np.nan_to_num((size - np.nanmean(size)) / np.nanstd(size))
    np.testing.assert_allclose(data.train.inputs[:, 0].numpy(), scaled, rtol=1e-6)
    for k, color in enumerate([b"blue", b"deep red", b"?"], start=1):
        assert (data.train.inputs[:, k].numpy() == (theirs["its color"] == color)).all()
    named = [data.classes[k].encode() for k in data.train.targets]
    assert named == theirs["kind"].tolist()


def test_numbers_that_arff_declares_as_names_are_categories(table):
    text = "@relation r\n@attribute a {1,2}\n@attribute y {u,v}\n@data\n1,u\n2,v\n2,u\n"
    assert table(text, test=text, name="t.arff").train.inputs.tolist() == [[1, 0], [0, 1], [0, 1]]


def warnings_of(data):
    return [note.text for note in data.notes if note.doubtful]


def test_the_first_row_is_the_header_unless_the_user_says_otherwise(table):
    text = "1,u\n2,v\n3,u\n4,v\n5,u\n"
    data = table(text, header="no", test=text)
    assert (len(data.train), len(data.test)) == (5, 5)
    assert not any("header" in warning for warning in warnings_of(data))
    data = table(text, test=text)
    assert (len(data.train), len(data.test)) == (4, 4)
    assert any("first row has numbers such as '1'" in warning for warning in warnings_of(data))
    letters = "p,e\np,e\nq,f\nq,f\n"
    data = table(letters, test=letters)
    assert len(data.train) == 3
    assert any("occur again below, such as 'p'" in warning for warning in warnings_of(data))
    years = "2001,2002,y\n1,2,u\n3,4,v\n"
    data = table(years, test=years, header="yes", label="y")
    assert len(data.train) == 2
    assert not any("header" in warning for warning in warnings_of(data))


# The cases: small files, each the example of a kind


def case(name, *, folder="tables", fraction=0.2, skip_bad=False, **options):
    options = {"label": "y", **options}
    return load_table(name, options, LoadOptions(CASES / folder, 0, fraction, skip_bad))


def numbers_of(data):
    return data.preparation["numbers"]["columns"]


@pytest.mark.parametrize(
    ("name", "options", "column", "form", "fix"),
    [
        ("dec.csv", {}, "price", "numbers with a decimal comma", "decimal=,"),
        ("airquality_like.csv", {"label": "level"}, "T", "with a decimal comma", "decimal=,"),
        ("airquality_like.csv", {"label": "level"}, "Date", "dates or times", "drop="),
        ("thou.csv", {}, "price", "separators of thousands", "thousands=,"),
        ("cur.csv", {}, "price", "amounts of money", "drop=price"),
        ("pct.csv", {}, "x", "percentages", "drop=x"),
        ("date.csv", {}, "when", "dates or times", "drop=when"),
        ("id.csv", {}, "id", "nearly one category per row", "drop=id"),
    ],
)
def test_columns_that_are_not_what_they_look_like_are_warned_of(name, options, column, form, fix):
    told = [text for text in warnings_of(case(name, **options)) if form in text]
    assert len(told) == 1
    assert repr(column) in told[0]
    assert fix in told[0]


def test_numbers_of_another_form_are_read_where_the_user_says_so():
    plain = {"x": [84.44, 25.89, 96.78], "price": [189706.44, 128258.53, 90090.1]}
    for name, options in {"dec.csv": {"decimal": ","}, "thou.csv": {"thousands": ","}}.items():
        data = case(name, test=name, **options)
        assert numbers_of(data) == ["x", "price"]
        assert warnings_of(data) == [
            f"test={name} is the training table, so the test rows are trained on too"
        ]
        numbers = data.preparation["numbers"]
        back = data.train.inputs[:3, :2].double() * torch.tensor(numbers["scale"]) + torch.tensor(
            numbers["mean"]
        )
        for k, column in enumerate(plain.values()):
            assert back[:, k].tolist() == pytest.approx(column, rel=1e-4)
    air = case("airquality_like.csv", label="level", decimal=",", drop="Date,Time")
    assert numbers_of(air) == ["CO(GT)", "C6H6(GT)", "T", "RH", "AH", "", ""]
    (empty,) = warnings_of(air)
    assert "without a value in the training split: '', ''" in empty


def test_groups_of_other_than_three_digits_are_no_thousands(table):
    text = 'a,y\n"1,000",u\n"22,333.5",v\n7,u\n"1,2,3",v\n'
    with pytest.raises(
        UserError, match=r"row 5: expected a number \(with thousands=,\) in column 'a', got '1,2,3'"
    ):
        table(text, thousands=",")
    data = table(text + "8,v\n", thousands=",", skip_bad=True)
    assert data.preparation["numbers"]["columns"] == ["a"]


@pytest.mark.parametrize("mark", ["", "ab", "-", "5", "e"])
def test_marks_that_numbers_cannot_have_are_refused(table, mark):
    with pytest.raises(UserError, match=f"decimal={mark}: expected one character"):
        table(PETS, decimal=mark)
    with pytest.raises(UserError, match="decimal and thousands are both ','"):
        table(PETS, decimal=",", thousands=",")


@pytest.mark.parametrize(("name", "label"), [("numhead.csv", "0"), ("numhead2.csv", "2")])
def test_a_header_of_numbers_is_a_header_and_warned_of(name, label):
    data = case(name, label=label)
    assert len(data.train) + len(data.test) == 60
    assert any("first row has numbers such as '0'" in text for text in warnings_of(data))
    sure = case(name, label=label, header="yes")
    assert not any("header" in text for text in warnings_of(sure))


def test_a_header_word_that_comes_again_is_a_header_and_warned_of():
    data = case("hdrval.csv")
    assert (len(data.train) + len(data.test), data.classes) == (60, ("n", "y"))
    (warning,) = warnings_of(data)
    assert "words that occur again below, such as 'y'" in warning
    assert "header=yes" in warning


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("lab_ids.csv", ("17", "9007199254740992", "9007199254740993")),
        ("lab_zeros.csv", ("007", "7", "8")),
        ("lab_codes.csv", ("2", "1000", "1e3")),
    ],
)
def test_labels_that_are_one_float_are_several_classes(name, classes):
    data = case(name)
    assert data.classes == classes
    rows = rows_of(CASES / "tables" / name)[1:]
    counts = data.train.targets.bincount(minlength=3) + data.test.targets.bincount(minlength=3)
    assert counts.tolist() == [sum(row[-1] == label for row in rows) for label in classes]


def test_classes_that_are_the_same_number_are_warned_of():
    assert any("'007', '7' are the same number" in w for w in warnings_of(case("lab_zeros.csv")))
    assert not any("same number" in text for text in warnings_of(case("lab_ids.csv")))


def test_a_column_with_an_ampersand_is_written_in_percent_encoding():
    spec = f"table:{CASES}/tables/rd.csv?label=State&drop=R%26D%20Spend&test={CASES}/tables/rd.csv"
    assert load(spec).preparation["categories"]["columns"] == ["Profit"]
    assert len(load(f"table:{CASES}/tables/rd.csv?label=Profit&drop=R%26D Spend").classes) == 2


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("what?.csv", "what?.csv"),
        ("what?.csv", "what%3F.csv"),
        ("a#b&c%25.csv", "a#b&c%25.csv"),
        ("a=b,c.csv", "a=b,c.csv"),
        ("100%.csv", "100%25.csv"),
    ],
)
def test_paths_with_characters_of_the_syntax_are_found(tmp_path, name, written):
    (tmp_path / name).write_text(PETS)
    spec = f"table:{written}?label=kind&missing=?&test={quote(name)}"
    assert load(spec, root=tmp_path).classes == ("cat", "dog")


def test_columns_with_commas_and_equal_signs_are_written_in_percent_encoding(table):
    text = 'a,"b,c",d=1,100%,y\n1,2,3,4,u\n2,3,4,5,v\n'
    for drop in ("b%2Cc,d=1", "b%2Cc,d%3D1"):
        assert numbers_of(table(text, test=text, drop=drop)) == ["a", "100%"]
    assert numbers_of(table(text, test=text, drop="100%,b%2Cc")) == ["a", "d=1"]
    assert numbers_of(table(text, test=text, drop="100%25")) == ["a", "b,c", "d=1"]


def test_a_class_too_rare_for_both_splits_can_be_left_out():
    with pytest.raises(
        UserError, match=r"class, other, .*rare=drop to skip the rows of such classes"
    ):
        case("rare.csv")
    data = case("rare.csv", rare="drop")
    assert (data.classes, len(data.train) + len(data.test)) == (("no", "yes"), 60)
    (note,) = (note.text for note in data.notes if "rare=drop" in note.text)
    assert "1 rows of class 'other'" in note
    again = load_table(
        "rare.csv",
        {"label": "y", "rare": "drop"},
        LoadOptions(CASES / "tables", preparation=data.preparation),
    )
    assert torch.equal(again.test.inputs, data.test.inputs)
    kept = case("rare.csv", rare="train")
    assert (len(kept.classes), len(kept.train) + len(kept.test)) == (3, 61)


def test_arff_with_blanks_before_commas_is_read():
    name = "space_before_comma.arff"
    data = case(name, folder="arff", label="class", test=name)
    assert data.classes == ("may be", "no", "yes")
    assert len(data.train) == 6


def test_string_attributes_of_arff_are_categories_or_dropped():
    data = case("string.arff", folder="arff", label="class", fraction=0.5)
    assert data.preparation["categories"]["columns"] == ["note"]
    data = case("string.arff", folder="arff", label="class", fraction=0.5, drop="note")
    assert data.train.inputs.shape == (2, 1)


def test_the_columns_are_summed_up_in_one_note_however_many_there_are(table):
    data = table(PETS, test=PETS, label="kind")
    inputs, label = [note.text for note in data.notes if not note.doubtful][-2:]
    assert inputs == "inputs: 'size' (numbers from 1 to 5), 'color' (2 categories)"
    assert label == "label 'kind': 2 classes, 'cat', 'dog'"
    names = ",".join(f"c{k}" for k in range(2000))
    text = f"{names},y\n" + "".join("1," * 2000 + f"{'uv'[k % 2]}\n" for k in range(4))
    wide = table(text, test=text, label="y")
    assert sum(len(note.text) for note in wide.notes) < 2000
    assert any("and 1,988 more (1,988 of numbers" in note.text for note in wide.notes)
    assert any("and 1,995 more" in note.text for note in wide.notes)


@pytest.mark.parametrize("order", ["counting", "with gaps", "shuffled"])
def test_a_column_that_numbers_the_rows_is_warned_of(table, order):
    numbers = list(range(24))
    if order == "with gaps":
        numbers = [k for k in range(32) if k % 4]
    elif order == "shuffled":
        numbers = [7 * k % 24 for k in range(24)]
    text = "n,a,y\n" + "".join(f"{n},{k * k},{'uv'[k % 2]}\n" for k, n in enumerate(numbers))
    (warning,) = warnings_of(table(text))
    assert warning == (
        "columns of different integers almost without gaps, as if rows were numbered: 'n'. Pass "
        "drop=n if they are identifiers."
    )


def test_a_column_that_numbers_the_rows_of_each_file_is_warned_of(table):
    rows = "".join(f"{k},{k * k % 7},{'uv'[k % 2]}\n" for k in range(12))
    data = table(f"n,a,y\n{rows}", test=f"n,a,y\n{rows}", label="y")
    assert any("as if rows were numbered: 'n'" in text for text in warnings_of(data))


def test_a_far_value_that_repeats_is_warned_of_as_a_marker(table):
    cells = [("-999" if k % 5 == 0 else f"{k % 7 + 0.5}", f"{k * k}") for k in range(40)]
    rows = "".join(f"{a},{b},{'uv'[k % 2]}\n" for k, (a, b) in enumerate(cells))
    (warning,) = warnings_of(table(f"a,b,y\n{rows}"))
    assert warning.startswith("columns of numbers with a far value that repeats")
    assert "'a'. If '-999' means that a value is missing, pass missing=" in warning
    advice = warning.rpartition("missing=")[2].removesuffix(".")
    assert warnings_of(table(f"a,b,y\n{rows}", missing=advice)) == []
    near = "".join(f"{99 - k % 3},{k * k},{'uv'[k % 2]}\n" for k in range(40))
    assert warnings_of(table(f"a,b,y\n{near}")) == []


@pytest.mark.parametrize("name", ["id", "patient_id", "rowID", "Index"])
def test_different_integers_with_the_name_of_an_identifier_are_warned_of(table, name):
    rows = "".join(f"{k * k * 31},{k * 1.5},{'uv'[k % 2]}\n" for k in range(40))
    (warning,) = warnings_of(table(f"{name},a,y\n{rows}"))
    assert f"name of an identifier: '{name}'. Pass drop={name} if they" in warning
    assert warnings_of(table(f"paid,a,y\n{rows}")) == []


def test_a_few_known_numbers_are_not_taken_for_numbers_of_rows(table):
    cells = {2: "3", 5: "7", 9: "5"}
    rows = "".join(f"{cells.get(k, '')},{k * k % 7},{'uv'[k % 2]}\n" for k in range(24))
    assert not [text for text in warnings_of(table(f"n,a,y\n{rows}")) if "numbered" in text]


def test_a_category_is_missing_only_as_it_is_written(table):
    rows = "".join(f"{c},{k},{'uv'[k % 2]}\n" for k, c in enumerate(["a", "b", "c", "-999.0"] * 6))
    data = table(f"c,b,y\n{rows}", test=f"c,b,y\n{rows}", label="y", missing="-999")
    assert any("'c' (4 categories)" in note.text for note in data.notes)
    assert data.train.inputs.shape[1] == 5


def test_a_marker_of_missing_values_stands_for_the_number_however_it_is_written(table):
    rows = "".join(f"{k},{k * k % 7},{'uv'[k % 2]}\n" for k in range(1, 11))
    text = f"a,b,y\n{rows}-999.0,-999,u\n-9.99e2,1,v\n"
    data = table(text, test=text, label="y", missing="-999")
    assert any("'a' (numbers from 1 to 10" in note.text for note in data.notes)
    assert float(data.train.inputs.abs().max()) < 20


def test_whole_numbers_taken_for_real_values_are_warned_of_where_they_repeat(table):
    text = "a,y\n" + "".join(f"{k * k % 31},{k % 25}\n" for k in range(75))
    (warning,) = warnings_of(table(text))
    assert "25 different integers. If they are classes" in warning
    assert warnings_of(table(text, task="regression")) == []


def test_categories_of_the_test_split_alone_are_warned_of(table):
    for cell, example in (("x", "'x'"), ("", "no value")):
        data = table("c,y\nr,u\nb,v\n", test=f"c,y\nr,u\n{cell},v\n", label="y")
        text = f"not in the training split, such as {example}, are encoded as zeros: 'c' in 1 of 2"
        assert any(text in warning for warning in warnings_of(data))


def test_a_class_without_test_examples_is_warned_of_once(tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n1,u\n3,v\n")
    (tmp_path / "b.csv").write_text("a,y\n1,u\n")
    data = load("table:a.csv?label=y&test=b.csv", root=tmp_path)
    found = [text for text in warnings_of(data) if "no example" in text]
    assert found == ["the test split has no example of 1 of 2 classes: v"]


# What is wrong


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (PETS, {"label": "kin"}, "t.csv: there is no column 'kin'. Did you mean 'kind'"),
        (PETS, {"label": "3"}, "t.csv: there is no column '3'"),
        (PETS, {"label": "-4"}, "t.csv: there is no column '-4'"),
        (PETS, {"labell": "kind"}, "no table option 'labell'. Did you mean 'label'"),
        (PETS, {"header": "maybe"}, "no value of the option header 'maybe'"),
        (PETS, {"task": "classify"}, "Did you mean 'classification'"),
        (PETS, {"drop": "kind"}, "drop: expected columns other than the label, got 'kind'"),
        (PETS, {"drop": "0,1"}, "no column except the label 'kind'"),
        (PETS, {"drop": "size,"}, "t.csv: there is no column ''"),
        (
            PETS,
            {"categories": "kind", "task": "regression"},
            "categories: expected columns other than the label, got 'kind'",
        ),
        (
            PETS,
            {"task": "regression"},
            "t.csv row 2: expected a number in column 'kind', got 'cat'",
        ),
        ("a,a,y\n1,2,u\n3,4,v\n", {"label": "a"}, "several columns 'a'. Give label as the number"),
        ("", {}, "t.csv is empty"),
        (" \n \n", {}, "t.csv is empty"),
        (b"\xef\xbb\xbf", {}, "t.csv is empty"),
        (",,\n,,\n", {}, "has only empty cells"),
        ("a,y\n", {}, "t.csv has a header but no rows"),
        ("y\nu\nv\n", {}, "no column except the label 'y'"),
        ("a,y\n1,u\n2\n", {}, "t.csv row 3 has 1 cells rather than 2"),
        ("a,y\n1,u\n\n2,v,w\n", {}, "t.csv row 4 has 3 cells rather than 2"),
        ('a,y\n1,u\n2,"v\n3,u\n', {}, "line 4: unexpected end of data. Check the quotes"),
        ('a,y\n1,u\n2,"v"v\n3,u\n', {}, "line 3: .*Check the quotes"),
        ("a,y\n1,u\n2,v\nten,u\n", {}, "t.csv row 4: expected a number in column 'a', got 'ten'"),
        ("a,y\n1,u\n2,v\ninf,u\n", {}, "row 4: expected a number in column 'a', got 'inf'"),
        (
            "a,y\n1,u\n-1e999,v\n3,u\n",
            {},
            "row 3: expected a number up to 3.4e38 in column 'a', got '-1e",
        ),
        ("a,y\n1,u\n2,v\n4e38,u\n", {}, "row 4: expected a number up to 3.4e38 in column 'a'"),
        ("a,y\n1,u\n2,\n3,v\n", {"label": "y"}, "t.csv row 3: the label 'y' is missing"),
        ("a,y\n1,1\n2,2\n3,x\n4,1\n", {}, "row 4: expected a number in column 'y', got 'x'"),
        ("a,y\n1,u\n2,u\n3,u\n", {}, "expected two or more classes in column 'y', got 'u' only"),
        ("a,y\n1,1\n2,1\n3,1\n", {}, "expected two or more classes in column 'y', got '1' only"),
        (
            "a,y\n1,u\n2,v\n3,v\n",
            {},
            r"class, u, has 1\..*into the training split \(a study then gives no verdict\)\.$",
        ),
        ("a,y\n1,3\n2,4\n3,4\n4,4\n", {}, r"class, 3, has 1\..*quantities, .* task=regression\."),
        (b"a,y\n1,\xff\n", {}, "t.csv is not UTF-8 text: byte 0xff at offset 6"),
        (b"a,y\n1,\0\n", {}, "t.csv is not text: byte 0x00 at offset 6"),
        (PETS.encode("utf-16"), {}, "not UTF-8 text: byte 0xff at offset 0"),
    ],
)
def test_a_wrong_table_raises_an_error(table, content, options, sentence):
    with pytest.raises(UserError, match=sentence):
        table(content, **options)


def test_without_a_label_the_columns_are_listed(tmp_path):
    (tmp_path / "t.csv").write_text(PETS)
    with pytest.raises(UserError, match=r"label=COLUMN\. t\.csv has the columns size, color, kind"):
        load_table("t.csv", {}, LoadOptions(tmp_path))


def test_paths_that_are_not_tables_raise_an_error(tmp_path, monkeypatch):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "t.xlsx").write_text(PETS)
    os.mkfifo(tmp_path / "pipe.csv")
    for name, sentence in {
        "no.csv": "there is no table no.csv",
        "folder.csv": "folder.csv is not a file",
        "pipe.csv": "pipe.csv is not a file",
        "t.xlsx": "expected one of the extensions .csv.*got '.xlsx'",
        "a\0b.csv": "cannot be the path|there is no",
        "n" * 300 + ".csv": "cannot be the path|there is no",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load_table(name, {"label": "0"}, LoadOptions(tmp_path))
    (tmp_path / "t.csv").write_text(PETS)
    monkeypatch.chdir(tmp_path)
    assert load_table("t.csv", {"label": "kind"}, LoadOptions(tmp_path / "none", 0, 0.5)).classes


def test_a_file_without_the_right_to_read_it_is_refused(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(PETS)

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)  # the tests may run as root
    with pytest.raises(UserError, match=r"t\.csv cannot be read \(Permission denied"):
        load_table("t.csv", {"label": "kind"}, LoadOptions(tmp_path))


def test_a_test_file_has_to_have_the_same_columns(table):
    with pytest.raises(UserError, match=r"test_t.csv has no column 'size', which t.csv has"):
        table(PETS, test=PETS.replace("size", "length"))
    with pytest.raises(UserError, match=r"test_t.csv has no column 'kind', which t.csv has"):
        table(PETS, test="size,color\n1,red\n")


def test_the_columns_of_a_test_file_are_found_by_name(table):
    test = "kind,extra,color,size\ncat,7,red,1\ndog,8,blue,5\n"
    data = table(PETS, test=test, label="kind")
    std = (8.75 / 4) ** 0.5
    want = torch.tensor([[(1 - 2.75) / std, 0, 1], [(5 - 2.75) / std, 1, 0]])
    torch.testing.assert_close(data.test.inputs, want)
    assert any("ignored columns that are not inputs: 'extra'" in one.text for one in data.notes)


def test_a_class_of_the_test_file_alone_is_refused(table):
    test = "a,y\n1,u\n2,w\n"
    with pytest.raises(UserError, match=r"test_t.csv row 3: class 'w' .* not in t.csv"):
        table("a,y\n1,u\n2,v\n", test=test)
    data = table("a,y\n1,u\n2,v\n", test=test, skip_bad=True)
    assert (data.classes, data.test.targets.tolist()) == (("u", "v"), [0])
    assert len(data.test.skipped) == 1
    assert data.train.skipped == ()


def test_bad_rows_can_be_skipped_and_are_reported_in_order(table):
    text = "a,b,y\n1,1,u\nx,2,v\n3,3\n3,,u\n5,inf,v\n6,6,?\n7,7,v\n8,8,v\n"
    with pytest.raises(UserError, match=r"row 3.*--skip-bad .*--set data.skip_bad=true"):
        table(text)
    data = table(text, skip_bad=True)
    rows = [sentence.split(":")[0].split(" has")[0] for sentence in data.train.skipped]
    assert rows == [f"t.csv row {k}" for k in (3, 4, 6, 7)]
    assert data.test.skipped == ()
    assert len(data.train) + len(data.test) == 4
    with pytest.raises(UserError, match="no usable row"):
        table("a,y\n1,u\n2,v\n", skip_bad=True, task="regression")


def test_a_column_of_names_does_not_fill_the_memory(table):
    text = "id,y\n" + "".join(f"name{k},{k % 2}\n" for k in range(1000))
    with pytest.raises(
        UserError, match=r"take 2,000,000 bytes.*'id' alone has 500 categories: drop"
    ):
        table(text, max_bytes=10**6)


def test_a_test_value_beyond_float32_is_a_bad_row(table):
    text, test = "a,y\n1e-30,u\n2e-30,v\n", "a,y\n1e-30,u\n1e38,u\n2e-30,v\n"
    with pytest.raises(
        UserError, match=r"test_t.csv row 3: column 'a' has a value that is too far"
    ):
        table(text, test=test)
    data = table(text, test=test, skip_bad=True)
    assert data.test.inputs.tolist() == [[-1], [1]]
    assert data.test.targets.tolist() == [0, 1]
    assert len(data.test.skipped) == 1


# The preparation of the training, applied to other tables


def with_preparation_of(tmp_path, train, other, *, label="y", preparation=None, **more):
    """Load one table, and another as the first one's preparation has it."""
    for name, text in {"train.csv": train, "other.csv": other}.items():
        (tmp_path / name).write_text(text)
    first = load_table("train.csv", {"label": label}, LoadOptions(tmp_path, 0, 0.5))
    # As a checkpoint keeps it.
    kept = preparation or json.loads(json.dumps(first.preparation))
    options = {"label": label, **more.pop("options", {})}
    wanted = LoadOptions(tmp_path, 0, 0.5, preparation=kept, **more)
    return first, load_table("other.csv", options, wanted)


TRAIN = "a,c,y\n" + "".join(f"{k},{'rgb'[k % 3]},{'uv'[k % 2]}\n" for k in range(12))


def test_another_table_gets_the_mean_and_the_categories_of_the_training(tmp_path):
    first, other = with_preparation_of(tmp_path, TRAIN, "a,c,y\n100,g,v\n101,g,u\n,,u\n")
    numbers = first.preparation["numbers"]
    (mean,), (scale,) = numbers["mean"], numbers["scale"]
    rows = {tuple(row) for row in first.train.inputs[:, 0, None].tolist()}
    # The training rows are whole numbers; the mean and std are those of NumPy.
    known = np.array([row[0] * scale + mean for row in rows]).round()
    assert (mean, scale) == (pytest.approx(known.mean()), pytest.approx(known.std()))
    want = [[(100 - mean) / scale, 0, 1, 0], [(101 - mean) / scale, 0, 1, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(other.test.inputs, torch.tensor(want))
    assert other.test.targets.tolist() == [1, 0, 0]
    assert len(other.train) == 0
    assert other.preparation == first.preparation


def test_the_file_of_the_training_is_divided_again_as_it_was(tmp_path):
    first, other = with_preparation_of(tmp_path, TRAIN, TRAIN)
    assert torch.equal(first.test.inputs, other.test.inputs)
    assert torch.equal(first.train.inputs, other.train.inputs)
    assert torch.equal(first.test.targets, other.test.targets)


def test_columns_of_another_table_are_found_by_name(tmp_path):
    rows = [line.split(",") for line in TRAIN.splitlines()]
    swapped = "".join(f"{y},extra{k},{c},{a}\n" for k, (a, c, y) in enumerate(rows))
    first, other = with_preparation_of(tmp_path, TRAIN, swapped)
    assert torch.equal(other.test.inputs, first.test.inputs)
    assert torch.equal(other.test.targets, first.test.targets)
    assert [note.text for note in other.notes if "ignored" in note.text] == [
        "other.csv: ignored columns that are not inputs: 'extra0'"
    ]


def test_two_columns_of_one_name_are_told_apart_by_their_order(tmp_path):
    train = TRAIN.replace("a,c,y", "a,a,y")
    first, other = with_preparation_of(tmp_path, train, train + "0,b,u\n")
    assert first.preparation["categories"]["columns"] == ["a"]
    assert len(other.test) == 13


@pytest.mark.parametrize(
    ("other", "options", "sentence"),
    [
        ("a,y\n1,u\n", {}, "other.csv has no column 'c', which the training table has"),
        ("a,c\n1,r\n", {}, "other.csv: there is no column 'y'"),
        ("1,r,u\n2,g,v\n", {"header": "no", "label": "2"}, "no columns 'a', 'c'"),
        ("a,c,y\nten,r,u\n", {}, "row 2: expected a number in column 'a', got 'ten'"),
        ("a,c,y\n1,r,w\n", {}, "row 2: class 'w' of column 'y' is not in the training table"),
        (
            "a,c,y\n1,r,u\n",
            {"drop": "a"},
            "drop: expected columns that training did not use, got 'a'",
        ),
        (
            "a,c,y\n1,r,u\n",
            {"categories": "a"},
            "categories: expected columns that were not numbers in training",
        ),
        ("a,c,y\n1,r,u\n", {"task": "regression"}, "task: expected classification, as in training"),
        ("a,c,y\n1,r,u\n", {"missing": "-"}, "expected missing=.*, as in training"),
    ],
)
def test_a_table_that_does_not_fit_the_training_is_refused(tmp_path, other, options, sentence):
    with pytest.raises(UserError, match=sentence):
        with_preparation_of(tmp_path, TRAIN, other, options=options)


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "image"},
        {"label": 3},
        {"classes": None},
        {"classes": [["u"], "v"]},
        {"sha256": None},
        {"missing": 7},
        {"numbers": []},
        {"numbers": {"columns": ["a"], "mean": [], "scale": []}},
        {"numbers": {"columns": ["a"], "mean": ["x"], "scale": [1.0]}},
        {"numbers": {"columns": ["a"], "mean": [float("nan")], "scale": [1.0]}},
        {"numbers": {"columns": [1], "mean": [0.0], "scale": [1.0]}},
        {"categories": {"columns": ["c"], "values": []}},
        {"categories": {"columns": ["c"], "values": [[1]]}},
        {"categories": {"columns": ["c"], "values": [3]}},
    ],
)
def test_what_is_not_the_preparation_of_a_table_is_refused(tmp_path, damage):
    (tmp_path / "t.csv").write_text(TRAIN)
    whole = load_table("t.csv", {"label": "y"}, LoadOptions(tmp_path, 0, 0.5)).preparation
    load_table("t.csv", {}, LoadOptions(tmp_path, 0, 0.5, preparation=whole))
    for damaged in ({**whole, **damage}, {k: v for k, v in whole.items() if k not in damage}):
        with pytest.raises(UserError, match=r"checkpoint that prepare data|data of another form"):
            load_table("t.csv", {}, LoadOptions(tmp_path, 0, 0.5, preparation=damaged))


def accuracies(train, *others):
    """Train a random forest of scikit-learn on one table, and score it on all rows of others."""
    wanted = LoadOptions(CASES / "score-table")
    data = load_table(train, {"label": "y"}, wanted)
    learned = RandomForestClassifier(50, random_state=0).fit(
        data.train.inputs.numpy(), data.train.targets.numpy()
    )
    found = []
    for name in others:
        options = {"label": "y", "test": name}
        other = load_table(train, options, wanted._replace(preparation=data.preparation)).test
        found.append(learned.score(other.inputs.numpy(), other.targets.numpy()))
    return found


def test_tables_of_other_columns_and_values_are_scored_as_the_training_has_them():
    # Prepared by its own columns, c.csv scores 100%.
    other_categories, shifted = accuracies("a.csv", "c.csv", "d.csv")
    assert other_categories < 0.5
    assert shifted == 1
    whole, few, swapped = accuracies("n.csv", "n.csv", "n_few.csv", "n_swapped.csv")
    assert few == 1
    assert swapped == whole > 0.98


def test_categories_that_the_training_never_saw_are_counted_in_a_warning(tmp_path):
    _, other = with_preparation_of(tmp_path, TRAIN, "a,c,y\n1,x,u\n2,r,v\n3,z,v\n")
    (note,) = (note for note in other.notes if note.doubtful)
    assert "'c' in 2 of 3 rows" in note.text
    assert other.test.inputs[:, 1:].sum(dim=1).tolist() == [0, 1, 0]


def test_regression_uses_the_preparation_too(tmp_path):
    train = "a,y\n" + "".join(f"{k},{k / 7}\n" for k in range(12))
    first, other = with_preparation_of(tmp_path, train, "y,a\n1,1\n3,2\n")
    assert (first.classes, other.classes) == ((), ())
    assert other.test.targets.tolist() == [1, 3]


def test_a_set_of_uci_uses_the_preparation_too(tmp_path):
    for folder, shift in {"one": 0, "two": 1000}.items():
        (tmp_path / folder).mkdir()
        rows = "".join(f"{k + shift},{k % 3},{k % 2}\n" for k in range(20))
        (tmp_path / folder / "HTRU_2.csv").write_text(rows)
    first = uci.load_htru2(str(tmp_path / "one"), {}, LoadOptions(tmp_path))
    wanted = LoadOptions(tmp_path, preparation=first.preparation)
    other = uci.load_htru2(str(tmp_path / "two"), {}, wanted)
    scale = first.preparation["numbers"]["scale"][0]
    low = first.train.inputs[:, 0].min().item()
    assert len(other.test) == 20
    assert other.test.inputs[:, 0].min().item() > low + 900 / scale
    iris = uci.load_iris("", {}, LoadOptions(tmp_path))
    again = uci.load_iris("", {}, LoadOptions(tmp_path, preparation=iris.preparation))
    assert torch.equal(iris.test.inputs, again.test.inputs)
    with pytest.raises(UserError, match="iris has no column"):
        uci.load_iris("", {}, wanted)


def test_arff_that_is_wrong_is_refused(table):
    for text, sentence in {
        ARFF.replace("@DATA", "@DATE"): "no line @data",
        ARFF.replace("NUMERIC", "RELATIONAL"): "header of an ARFF file",
        ARFF.replace("@ATTRIBUTE size NUMERIC", "@ATTRIBUTE size"): "header of an ARFF file",
        "@relation r\n@data\n1,2\n": "declares no attribute",
        ARFF[: ARFF.index("1, 'deep")]: "t.arff has a header but no rows",
        ARFF.replace("3,blue", "3,green"): "t.arff row 9: column 'its color' has 'green'",
        ARFF.replace(
            "3,blue", "x,blue"
        ): "t.arff row 9: expected a number in column 'size', got 'x'",
        ARFF.replace("3,blue", "3,blue,blue"): "t.arff row 9 has 4 cells rather than 3",
        ARFF.replace("3,blue,dog", "{0 3, 1 blue}"): "row 9 is sparse ARFF",
    }.items():
        with pytest.raises(UserError, match=sentence):
            table(text, name="t.arff")


@pytest.mark.parametrize("name", ["when", "a list", "x,y"])
def test_a_column_of_another_type_does_not_matter_where_it_is_dropped(tmp_path, name):
    columns = {"a": [1.5, 2.5] * 4, name: [[1], [2]] * 4, "y": ["u", "v"] * 4}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=f"Convert it, or ignore it with drop={name}"):
        load_table("t.parquet", {"label": "y"}, LoadOptions(tmp_path))
    options = {"label": "y", "drop": quote(name)}
    grouped = {"y": ["u", "v"] * 8, "a": [1.5, 2.5] * 8, "who": [k // 4 for k in range(16)]}
    parquet.write_table(pa.table(grouped), tmp_path / "g.parquet")
    both = {"label": "y", "group": "who", "drop": "who"}
    assert load_table("g.parquet", both, LoadOptions(tmp_path)).train.groups is not None
    data = load_table("t.parquet", options, LoadOptions(tmp_path, test_fraction=0.5))
    assert data.train.inputs.shape == (4, 1)


def test_parquet_that_is_wrong_is_refused(table, tmp_path):
    parquet.write_table(pa.table({"a": [1, 2], "y": ["u", "v"]}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for content in (whole[:-9], whole[:40], PETS, b"PAR1", b"PAR1" + bytes(200) + b"PAR1"):
        with pytest.raises(UserError, match="cannot be read as Parquet"):
            table(content, name="t.parquet")
    parquet.write_table(pa.table({"a": [[1], [2]], "y": ["u", "v"]}), tmp_path / "l.parquet")
    with pytest.raises(UserError, match="column 'a' is of type list"):
        load_table("l.parquet", {"label": "y"}, LoadOptions(tmp_path))
    with pytest.raises(UserError, match="Remove the option header"):
        load_table("whole.parquet", {"label": "y", "header": "yes"}, LoadOptions(tmp_path))


def test_a_parquet_file_whose_checksums_are_wrong_is_refused(tmp_path):
    name = tmp_path / "t.parquet"
    written = pa.table({"a": [1.5, 2.5] * 50, "y": ["u", "v"] * 50})
    parquet.write_table(
        written, name, compression=None, use_dictionary=False, write_page_checksum=True
    )
    assert load_table("t.parquet", {"label": "y"}, LoadOptions(tmp_path)).classes == ("u", "v")
    content = bytearray(name.read_bytes())
    content[200] ^= 1
    name.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot be read as Parquet .*CRC"):
        load_table("t.parquet", {"label": "y"}, LoadOptions(tmp_path))


def test_a_parquet_file_that_would_unpack_beyond_the_limit_is_refused(tmp_path):
    name, count = tmp_path / "bomb.parquet", 10**6
    parquet.write_table(pa.table({"a": np.zeros(count, np.int8), "y": np.arange(count) % 2}), name)
    assert name.stat().st_size < 8 * 10**6
    with pytest.raises(UserError, match=r"a table of 1,000,000 rows and 2 columns, over the limit"):
        load_table("bomb.parquet", {"label": "y"}, LoadOptions(tmp_path, max_bytes=64 * 10**6))


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary("i4", "string")])
def test_a_long_text_that_parquet_keeps_once_is_counted_for_every_row(tmp_path, text):
    name = tmp_path / "bomb.parquet"
    long = pa.array(["x" * 10_000] * 2000).cast(text)
    parquet.write_table(pa.table({"a": long, "y": ["u", "v"] * 1000}), name)
    assert name.stat().st_size < 10**5
    with pytest.raises(UserError, match="text of its columns up to 'a' takes more than max_bytes"):
        load_table("bomb.parquet", {"label": "y"}, LoadOptions(tmp_path, max_bytes=10**7))


def test_a_text_file_beyond_the_limit_is_refused(table):
    with pytest.raises(UserError, match=r"t\.csv is 57 bytes, over the limit of 56"):
        table(PETS, max_bytes=56)
    with pytest.raises(UserError, match=r"about [0-9,]+ bytes .* 5 rows and 3 columns, over"):
        table(PETS, max_bytes=10_000)


@pytest.mark.parametrize("name", ["t.csv", "t.arff"])
def test_a_table_of_too_many_columns_is_refused_before_it_takes_memory(table, name):
    count = 200_000
    text = ",".join(map(str, range(count))) + "\n" + "1," * (count - 1) + "u\n"
    if name == "t.arff":
        text = "@relation r\n" + "@attribute a numeric\n" * count + "@data\n1\n"
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"200,000 columns, over the limit of 1,000,000,000"):
            table(text, name=name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(text)


def test_wide_parquet_takes_about_as_long_as_csv(table, tmp_path):
    count = 2500  # 4,000 columns took 15 s for 0.8 s where the time was quadratic
    row = {f"g{k}": [float(k), k + 1.5, k - 2.5, k] for k in range(count)}
    row["y"] = ["u", "v"] * 2
    parquet.write_table(pa.table(row), tmp_path / "t.parquet")
    lines = [list(row), *zip(*row.values(), strict=True)]
    text = "".join(",".join(map(str, line)) + "\n" for line in lines)
    (tmp_path / "t.csv").write_text(text)
    seconds, inputs = [], []
    for name in ("t.csv", "t.parquet"):
        start = time.process_time()
        data = load_table(name, {"label": "y", "test": name}, LoadOptions(tmp_path))
        seconds.append(time.process_time() - start)
        inputs.append(data.train.inputs)
    assert torch.equal(*inputs)
    assert seconds[1] < 4 * seconds[0] + 1


# The sets of the paper


def rows_of(path, delimiter=","):
    """The rows of a file, read slowly."""
    with path.open(newline="") as file:
        return [line for line in csv.reader(file, delimiter=delimiter) if line]


@pytest.mark.parametrize(
    ("name", "file", "numbers", "in_train"),
    [
        ("abalone", "abalone.data", range(1, 8), 7),
        ("arrhythmia", "arrhythmia.data", range(279), 3),
        ("htru2", "HTRU_2.csv", range(8), 0),
        ("phishing", "phishing.data", range(30), 0),
    ],
)
def test_a_set_of_uci_agrees_with_a_slow_reading(shared, name, file, numbers, in_train):
    rows = rows_of(shared / "uci" / file)
    data = getattr(uci, f"load_{name}")("", {}, LoadOptions(shared, seed=3))
    balance = Counter(row[-1] for row in rows)
    assert data.classes == tuple(sorted(balance, key=float))
    counts = data.train.targets.bincount(minlength=len(balance)) + data.test.targets.bincount(
        minlength=len(balance)
    )
    assert counts.tolist() == [balance[label] for label in data.classes]
    train = data.train.targets.bincount(minlength=len(balance))
    assert bool((train > 0).all())
    rare = [k for k, label in enumerate(data.classes) if balance[label] < 5]
    assert len(rare) == in_train
    assert train[rare].tolist() == [balance[data.classes[k]] for k in rare]
    assert bool((counts - train)[[k for k in range(len(train)) if k not in rare]].min() > 0)
    assert len(data.test) == pytest.approx(0.2 * len(rows), abs=4)
    # Normalizing is a straight line per column: through its least and greatest value, and so
    # every cell comes back, with its label.
    everything = torch.cat([data.train.inputs, data.test.inputs]).double().numpy()
    labels = torch.cat([data.train.targets, data.test.targets])
    for k in [1, len(numbers) // 2, len(numbers) - 1]:
        theirs = [(float(row[numbers[k]]), row[-1]) for row in rows]
        known = [value for value, _ in theirs]
        low, high = everything[:, k].min(), everything[:, k].max()
        scale = (max(known) - min(known)) / (high - low) if high > low else 0
        back = (everything[:, k] - low) * scale + min(known)
        close = 1e-5 * (max(known) - min(known)) + 1e-9
        for place, label in enumerate(data.classes):
            want = sorted(value for value, other in theirs if other == label)
            ours = np.sort(back[labels.numpy() == place])
            np.testing.assert_allclose(ours, want, atol=close)


def test_the_sexes_of_abalone_are_one_hot_behind_the_numbers(shared):
    rows = rows_of(shared / "uci" / "abalone.data")
    data = uci.load_abalone("", {}, LoadOptions(shared))
    sexes = data.train.inputs[:, 7:].sum(dim=0) + data.test.inputs[:, 7:].sum(dim=0)
    assert sexes.tolist() == [sum(row[0] == sex for row in rows) for sex in "FIM"]


def test_missing_cells_of_arrhythmia_are_the_mean(shared):
    rows = rows_of(shared / "uci" / "arrhythmia.data")
    data = uci.load_arrhythmia("", {}, LoadOptions(shared))
    inputs = torch.cat([data.train.inputs, data.test.inputs])
    # Column 13 (the angle of J) is missing in most of them.
    missing = sum(row[13] == "?" for row in rows)
    assert missing == 376
    assert int((inputs[:, 13] == 0).sum()) == missing
    assert bool(inputs.isfinite().all())


def test_the_two_files_of_arcene_are_its_parts(shared):
    folder = shared / "uci"
    read = {part: np.loadtxt(folder / f"arcene_{part}.data") for part in ("train", "valid")}
    data = uci.load_arcene("", {}, LoadOptions(shared))
    assert data.classes == ("-1", "1")
    for part, ours in {"train": data.train, "valid": data.test}.items():
        labels = (folder / f"arcene_{part}.labels").read_text().split()
        assert [data.classes[k] for k in ours.targets] == labels
        mean, deviation = read["train"].mean(axis=0), read["train"].std(axis=0)
        varies = deviation > 0
        want = np.zeros((100, 10_000))
        want[:, varies] = ((read[part] - mean) / np.where(varies, deviation, 1))[:, varies]
        np.testing.assert_allclose(ours.inputs.numpy(), want, rtol=1e-4, atol=1e-5)


def test_iris_agrees_with_scikit_learn():
    from sklearn.datasets import load_iris

    known = load_iris()
    data = uci.load_iris("", {}, LoadOptions(None, seed=1))
    assert data.classes == ("setosa", "versicolor", "virginica")
    assert data.test.targets.bincount().tolist() == [10, 10, 10]
    assert data.train.inputs.mean(dim=0).tolist() == pytest.approx([0] * 4, abs=1e-6)
    order = np.argsort(
        torch.cat([data.train.inputs, data.test.inputs])[:, 2].numpy(), kind="stable"
    )
    labels = torch.cat([data.train.targets, data.test.targets]).numpy()[order]
    petals = np.argsort(known.data[:, 2], kind="stable")
    # The 50 shortest petals are setosa's in both.
    assert (labels[:50] == 0).all()
    assert (known.target[petals][:50] == 0).all()


def test_a_set_is_found_under_the_names_of_the_archive(tmp_path):
    rows = [(k % 3 - 1, k % 2, 1 if k % 2 else -1) for k in range(20)]
    attributes = "".join(f"@attribute {n} {{-1,0,1}}\n" for n in ("having_IP", "URL", "Result"))
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    folder = tmp_path / "uci" / "phishing"
    folder.mkdir(parents=True)
    (folder / "Training Dataset.arff").write_text(f"@relation p\n{attributes}\n@data\n{lines}")
    packed = uci.load_phishing("", {}, LoadOptions(tmp_path))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "phishing.data").write_text(lines)
    plain = uci.load_phishing(str(tmp_path / "plain"), {}, LoadOptions(tmp_path / "none"))
    assert both(packed) == both(plain)
    assert packed.train.inputs.shape == (16, 2)


def test_a_set_that_is_not_there_is_refused_with_the_way_out(tmp_path):
    for name, file in {"abalone": "abalone.data", "phishing": "Training Dataset.arff"}.items():
        with pytest.raises(
            UserError, match=rf"{name} needs the file .*{file}.*archive.ics.uci.edu"
        ):
            getattr(uci, f"load_{name}")("", {}, LoadOptions(tmp_path))
        with pytest.raises(UserError, match=f"{name} has no options"):
            getattr(uci, f"load_{name}")("", {"label": "0"}, LoadOptions(tmp_path))


def test_labels_that_do_not_fit_the_data_are_refused(tmp_path):
    for part in ("train", "valid"):
        (tmp_path / f"arcene_{part}.data").write_text("1 2 \n3 4 \n5 7 \n")
        (tmp_path / f"arcene_{part}.labels").write_text("1\n-1\n1\n")
    data = uci.load_arcene("", {}, LoadOptions(tmp_path))
    assert data.train.targets.tolist() == [1, 0, 1]
    (tmp_path / "arcene_train.data").write_text("1 2 \n3 \n5 7 \n1 1\n")
    (tmp_path / "arcene_train.labels").write_text("1\n1\n-1\n1\n")
    data = uci.load_arcene("", {}, LoadOptions(tmp_path, skip_bad=True))
    assert data.train.targets.tolist() == [1, 0, 1]
    assert len(data.train.skipped) == 1
    (tmp_path / "arcene_train.labels").write_text("1\n-1\n")
    with pytest.raises(UserError, match=r"arcene_train.labels has 2 labels for the 4 rows"):
        uci.load_arcene("", {}, LoadOptions(tmp_path))


@pytest.mark.parametrize(
    ("labels", "form", "fix"),
    [
        (["1,5", "2,0", "3,5"], "with a decimal comma", "the option 'decimal=,'"),
        (["1,500", "2,000", "12,000"], "with separators of thousands", "the option 'thousands=,'"),
        (["2020-01-01", "2020-02-01", "2021-01-01"], "of dates or times", "Write them as"),
        (["$1", "$20", "$300"], "of amounts of money", "Write them as plain numbers"),
    ],
)
def test_labels_that_look_like_numbers_in_another_form_are_doubted(table, labels, form, fix):
    text = "a;y\n" + "".join(f"{k};{labels[k % 3]}\n" for k in range(30))
    (doubt,) = [note.text for note in table(text).notes if note.doubtful and form in note.text]
    assert doubt.startswith("label 'y': The labels look like a column")
    assert f"{fix}" in doubt
    assert "pass task=classification" in doubt
    explicit = table(text, task="classification").notes
    assert not [note for note in explicit if form in note.text]
    rare = text + f"31;{labels[0][:-1]}9\n"
    with pytest.raises(UserError, match=r"Or pass rare=drop .*The labels look like a column"):
        table(rare)
    with pytest.raises(UserError, match="Or pass rare=drop") as caught:
        table(rare, task="classification")
    assert "look like" not in str(caught.value)


def test_versions_are_no_dates(table):
    versions = ["1.1.1", "2.0.1", "0.9.9"]
    text = "a;y\n" + "".join(f"{k};{versions[k % 3]}\n" for k in range(30))
    assert not [note for note in table(text).notes if "dates" in note.text]


def test_numbers_with_a_marker_of_missing_values_are_doubted_or_named(table):
    often = "a,y\n" + "".join(f"{'None' if k % 3 else k},{'uv'[k % 2]}\n" for k in range(60))
    (doubt,) = [note.text for note in table(often).notes if "a few texts" in note.text]
    assert "If 'None' means that a value is missing" in doubt
    option = doubt.partition("pass missing=")[2].partition(";")[0]
    assert not [note for note in table(often, missing=option).notes if note.doubtful]
    seldom = "a,y\n" + "".join(f"{k if k % 3 else 'None'},{'uv'[k % 2]}\n" for k in range(60))
    with pytest.raises(UserError, match=r"markers of missing values, missing=.*,None") as caught:
        table(seldom)
    option = str(caught.value).partition("missing=")[2].partition(". To skip")[0]
    assert table(seldom, missing=option).classes == ("u", "v")
    for marker in ("N/A", "n/a", "#N/A", "<NA>", "NULL"):
        known = table(often.replace("None", marker))
        assert known.preparation["numbers"]["columns"] == ["a"]


def test_decimals_of_three_digits_are_no_thousands(table):
    rows = [f"{k % 7},{k % 90 + 10};{k % 9},{k % 900 + 100};{'uv'[k % 2]}" for k in range(60)]
    doubts = [n.text for n in table("a;b;y\n" + "\n".join(rows)).notes if n.doubtful]
    (doubt,) = [text for text in doubts if "decimal comma" in text]
    assert "'a', 'b'" in doubt
    assert not [text for text in doubts if "thousands, or" in text or "separators of" in text]
    alone = [f"{k % 9},{k % 900 + 100};{'uv'[k % 2]}" for k in range(60)]
    assert any(
        "columns of numbers with a decimal comma: 'b'" in note.text
        for note in table("b;y\n" + "\n".join(alone)).notes
    )


def test_a_column_without_a_name_is_warned_of_with_advice_that_works(table):
    rows = "".join(f"{k},{k % 7},{'uv'[k % 2]}\n" for k in range(40))
    data = table(f",x,y\n{rows}")
    warning = next(note.text for note in data.notes if "rows were numbered" in note.text)
    assert warning.endswith("after naming them in the header, if they are identifiers.")


def test_a_label_that_is_no_number_is_not_told_to_become_a_category(table):
    with pytest.raises(UserError, match=r"got 'rare'\. Correct it, or pass task=classification"):
        table("x,y\n1,2\n2,rare\n3,4\n4,5\n", task="regression")


@pytest.mark.parametrize("mark", ["", "0\n"])
def test_integers_with_a_point_before_three_digits_are_doubted(table, mark):
    prices = ["988", "1.025", "2.310", "870", "12", "1.999"]
    rows = "".join(f"{price},{k % 2}\n" for k, price in enumerate(prices * 4))
    as_input = [note for note in table(f"price,y\n{rows}").notes if "thousands=." in note.text]
    label = table(f"price,y\n{rows}", label="price", task="regression")
    as_label = [note for note in label.notes if "thousands=." in note.text]
    assert len(as_input) == len(as_label) == 1
    assert as_input[0].doubtful
    assert as_label[0].doubtful
    plain = rows.replace("988", "98.5") if not mark else rows.replace("1.025", "0.025")
    fine = table(f"price,y\n{plain}")
    assert not any("thousands=." in note.text for note in fine.notes)
    german = table(f"price;y\n{rows.replace(',', ';')}", decimal=",", thousands=".")
    assert not any("thousands=." in note.text for note in german.notes)


def test_the_training_table_without_its_test_file_is_refused(table):
    rows = "size,color,kind\n" + "".join(f"{k},red,{'ab'[k % 2]}\n" for k in range(12))
    trained = table(rows, test=rows.replace("red", "blue"))
    with pytest.raises(UserError, match=r"whose rows were all used for training"):
        table(rows, preparation=trained.preparation)
    assert len(table(rows.replace("1,", "9,"), preparation=trained.preparation).test) == 12
    again = table(rows, test=rows.replace("red", "blue"), preparation=trained.preparation)
    assert torch.equal(again.test.inputs, trained.test.inputs)


def test_booleans_and_numbers_of_parquet_files_are_those_of_the_training(table, tmp_path):
    rows = [(k % 2 == 0, (k % 3) * 10000 + 501, "yn"[k % 2]) for k in range(30)]
    text = "".join(
        f"{a},{'' if k == 4 else f'{b:05}'},{y},{k}\n" for k, (a, b, y) in enumerate(rows)
    )
    trained = table(f"on,zip,y,size\n{text}", label="y", categories="zip")
    zips = [None if k == 4 else float(b) for k, (_, b, _) in enumerate(rows)]
    columns = {"on": [a for a, _, _ in rows], "zip": zips, "y": [y for *_, y in rows]}
    parquet.write_table(pa.table(columns | {"size": range(30)}), tmp_path / "t.parquet")
    options = {"label": "y", "categories": "zip"}
    found = load_table("t.parquet", options, LoadOptions(tmp_path, preparation=trained.preparation))
    assert not any("not in the training split" in note.text for note in found.notes)
    whole = torch.cat([trained.train.inputs, trained.test.inputs])
    assert {*map(tuple, found.test.inputs.tolist())} <= {*map(tuple, whole.tolist())}


@pytest.mark.parametrize("own_test", [False, True])
def test_groups_of_the_training_are_needed_for_its_rows(table, own_test):
    rows = [f"{k},{k % 3},p{k // 4},{'ab'[k % 2]}" for k in range(40)]
    text = "\n".join(["size,width,who,kind", *rows, ""])
    other = text.replace(",p", ",a") if own_test else None
    trained = table(text, test=other, group="who")
    bare = "\n".join(
        ",".join(row.split(",")[k] for k in (0, 1, 3)) for row in text.split("\n")[:-1]
    )
    sentence = (
        "whose rows were all used for training"
        if own_test
        else "these are the training rows, but the column 'who', by whose"
    )
    with pytest.raises(UserError, match=sentence):
        table(bare + "\n", preparation=trained.preparation)
    if own_test:
        with pytest.raises(UserError, match=sentence):
            table(text, group="who", preparation=trained.preparation)
    else:
        again = table(text, group="who", preparation=trained.preparation)
        assert torch.equal(again.test.inputs, trained.test.inputs)


def test_a_test_file_of_another_format_is_spelled_as_the_training_file(tmp_path):
    flags, codes, labels = (
        [k % 3 == 0 for k in range(40)],
        [k % 4 for k in range(40)],
        [0.0, 1.0] * 20,
    )
    rows = zip(flags, codes, labels, strict=True)
    lines = [f"{flag},{code:02},{label},{k}" for k, (flag, code, label) in enumerate(rows)]
    text = "\n".join(["flag,code,y,size", *lines, ""])
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "test.csv").write_text(text)
    columns = {"flag": flags, "code": codes, "y": [int(y) for y in labels], "size": range(40)}
    parquet.write_table(pa.table(columns), tmp_path / "test.parquet")
    found = {}
    for name in ("csv", "parquet"):
        options = {"label": "y", "categories": "code", "test": f"test.{name}"}
        found[name] = load_table("train.csv", options, LoadOptions(tmp_path))
        assert not any("not in the training split" in note.text for note in found[name].notes)
    assert torch.equal(found["csv"].test.inputs, found["parquet"].test.inputs)
    assert torch.equal(found["csv"].test.targets, found["parquet"].test.targets)


def test_an_odd_spelling_of_a_boolean_does_not_make_another_table(table):
    rows = [f"{k % 2 == 0},{k},{'ab'[k % 2]}" for k in range(60)]
    rows[7] = "true,7,b"
    text = "\n".join(["flag,size,kind", *rows, ""])
    trained = table(text)
    again = table(text, preparation=trained.preparation)
    assert torch.equal(again.test.inputs, trained.test.inputs)
    labels = "\n".join(["size,flag", *(f"{r.split(',')[1]},{r.split(',')[0]}" for r in rows), ""])
    trained = table(labels, rare="drop")
    again = table(labels, rare="drop", preparation=trained.preparation, skip_bad=True)
    assert torch.equal(again.test.inputs, trained.test.inputs)


def test_numbers_of_typed_files_have_no_thousands(tmp_path):
    columns = {"a": [1.0, 2.0, 1.125, 2.5] * 10, "y": [0, 1] * 20}
    parquet.write_table(
        pa.table(columns | {"a": [1.0, 2.0, 1.125, 2.375] * 10}), tmp_path / "t.parquet"
    )
    data = load_table("t.parquet", {"label": "y"}, LoadOptions(tmp_path))
    assert not any("thousands" in note.text for note in data.notes)


def test_rows_of_the_training_with_other_groups_are_refused(table):
    rows = [f"{k},p{k // 4},{'ab'[k % 2]}" for k in range(40)]
    text = "\n".join(["size,who,kind", *rows, ""])
    trained = table(text, group="who")
    renamed = table(text.replace(",p", ",q"), group="who", preparation=trained.preparation)
    assert torch.equal(renamed.test.inputs, trained.test.inputs)
    other = "\n".join(["size,who,kind", *(f"{k},p{k % 10},{'ab'[k % 2]}" for k in range(40)), ""])
    sorted_otherwise = "\n".join(
        ["size,who,kind", *(f"{k},{9 - k // 4},{'ab'[k % 2]}" for k in range(40)), ""]
    )
    for changed in (other, sorted_otherwise):  # by which the split would be another one
        with pytest.raises(
            UserError, match="these are the training rows, but the column 'who', by whose groups"
        ):
            table(changed, group="who", preparation=trained.preparation)


def test_booleans_of_a_csv_are_those_of_a_typed_training_file(tmp_path):
    rows = range(60)
    columns = {"flag": [k % 2 == 0 for k in rows], "size": rows, "y": [k % 3 for k in rows]}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    text = "".join(f"{k % 2 == 0},{k},{k % 3}\n" for k in rows)
    (tmp_path / "same.csv").write_text(f"flag,size,y\n{text}")
    (tmp_path / "other.csv").write_text(f"flag,size,y\n{text.replace(',59,', ',60,')}")
    trained = load_table("t.parquet", {"label": "y"}, LoadOptions(tmp_path))
    known = LoadOptions(tmp_path, preparation=trained.preparation)
    same = load_table("same.csv", {"label": "y"}, known)
    assert torch.equal(same.test.inputs, trained.test.inputs)
    assert bool(
        (load_table("other.csv", {"label": "y"}, known).test.inputs[:, 1:].sum(1) == 1).all()
    )
    apart = load_table("t.parquet", {"label": "y", "test": "other.csv"}, LoadOptions(tmp_path))
    assert bool((apart.test.inputs[:, 1:].sum(1) == 1).all())


def test_numbers_of_a_typed_test_file_are_not_those_that_thousands_spell(tmp_path):
    rows = "".join(f"{1 + k % 6}.000;{'ab'[k % 2]}\n" for k in range(40))
    (tmp_path / "t.csv").write_text(f"size;y\n{rows}")
    parquet.write_table(
        pa.table({"size": range(1, 9), "y": list("abababab")}), tmp_path / "t.parquet"
    )
    options = {"label": "y", "decimal": ",", "thousands": ".", "test": "t.parquet"}
    data = load_table("t.csv", options, LoadOptions(tmp_path))
    steps = data.test.inputs[1:, 0] - data.test.inputs[:-1, 0]
    assert torch.allclose(steps, steps[:1].expand(7), atol=1e-6)


def test_texts_of_digits_in_a_typed_file_match_numbers_of_a_test_file(tmp_path):
    codes, rest = [k % 3 for k in range(60)], {"size": range(60), "y": [0, 1] * 30}
    texts = {"zip": [f"{code:02}" for code in codes]}
    parquet.write_table(pa.table(texts | rest), tmp_path / "train.parquet")
    parquet.write_table(pa.table({"zip": codes} | rest), tmp_path / "test.parquet")
    options = {"label": "y", "test": "test.parquet"}
    data = load_table("train.parquet", options, LoadOptions(tmp_path))
    assert torch.equal(data.test.inputs, data.train.inputs)


@pytest.mark.parametrize("task", ["regression", None])
def test_targets_of_a_typed_test_file_are_not_those_that_thousands_spell(tmp_path, task):
    texts = [f"{1 + k % 6}.000" for k in range(40)]
    parquet.write_table(pa.table({"size": range(40), "price": texts}), tmp_path / "train.parquet")
    parquet.write_table(pa.table({"size": [3, 4], "price": [1, 8]}), tmp_path / "test.parquet")
    options = {"label": "price", "decimal": ",", "thousands": ".", "test": "test.parquet"}
    options |= {"task": "regression"} if task else {}
    if task is None:  # texts are classes
        with pytest.raises(UserError, match="class '8'"):
            load_table("train.parquet", options, LoadOptions(tmp_path))
        return
    data = load_table("train.parquet", options, LoadOptions(tmp_path))
    assert data.test.targets.tolist() == [1, 8]
    assert data.train.targets[:3].tolist() == [1000, 2000, 3000]
    again = LoadOptions(tmp_path, preparation=data.preparation)
    assert load_table("train.parquet", options, again).test.targets.tolist() == [1, 8]


def test_groups_of_skipped_rows_may_differ_from_those_of_the_training(table):
    rows = [f"{k},p{k // 4},{'ab'[k % 2]}" for k in range(40)]
    text = "\n".join(["size,who,kind", *rows, "?!,p1,a", ""])
    trained = table(text, group="who", skip_bad=True)
    other = text.replace("?!,p1", "?!,a0")
    again = table(other, group="who", skip_bad=True, preparation=trained.preparation)
    assert torch.equal(again.test.inputs, trained.test.inputs)


def test_a_chosen_task_does_not_change_which_class_a_typed_test_label_is(tmp_path):
    rows = "".join(f"{k}\t{1 + k % 4}.000\n" for k in range(40))
    (tmp_path / "t.csv").write_text(f"x\ty\n{rows}")
    parquet.write_table(pa.table({"x": [1, 2, 3], "y": [1, 2, 3]}), tmp_path / "test.parquet")
    options = {"label": "y", "decimal": ",", "thousands": ".", "test": "test.parquet"}
    for more in ({}, {"task": "classification"}):
        with pytest.raises(UserError, match=r"class '1' of column 'y' is not in t\.csv"):
            load_table("t.csv", options | more, LoadOptions(tmp_path))


def test_inputs_of_a_typed_test_file_are_not_spelled_like_texts_of_a_scored_table(tmp_path):
    size, y = [f"{1 + k % 6}.000" for k in range(40)], ["uv"[k % 2] for k in range(40)]
    rows = "".join(f"{a}\t{b}\n" for a, b in zip(size, y, strict=True))
    (tmp_path / "train.csv").write_text(f"size\ty\n{rows}")
    parquet.write_table(pa.table({"size": size, "y": y}), tmp_path / "again.parquet")
    test = {"size": [1, 1000, 2, 2000], "y": ["u", "v", "u", "v"]}
    parquet.write_table(pa.table(test), tmp_path / "test.parquet")
    options = {"label": "y", "decimal": ",", "thousands": "."}
    trained = load_table("train.csv", options, LoadOptions(tmp_path))
    given = LoadOptions(tmp_path, preparation=trained.preparation)
    found = [
        load_table(name, options | {"test": "test.parquet"}, given).test.inputs
        for name in ("train.csv", "again.parquet")
    ]
    assert torch.equal(*found)
    assert len(found[0].unique()) == 4


@pytest.mark.parametrize("delimiter", [", ", " ,", " , ", "; ", "\t "])
def test_white_space_around_quoted_cells_is_no_part_of_them(table, delimiter):
    lines = [["x", '"z"', '"kind"']]
    lines += [[f"{k}.5", f'"{k * k}"', f'"{"uv"[k % 2]}, ""w"""'] for k in range(12)]
    data = table("\n".join(map(delimiter.join, lines)) + "\n", label="kind")
    assert data.classes == ('u, "w"', 'v, "w"')
    assert numbers_of(data) == ["x", "z"]


def test_a_quote_in_a_text_does_not_merge_rows_that_are_divided_by_tabs(table):
    lines = ["text\tkind", *(f"a {k} b\t{'uv'[k % 2]}" for k in range(12))]
    lines[3], lines[6] = '"a good start\tu', 'the end"\tv'
    with pytest.raises(UserError, match=r"t\.tsv line 7: .* one with whole rows in it"):
        table("\n".join(lines) + "\n", name="t.tsv", label="kind")


def test_tabs_and_line_breaks_in_quotes_are_a_part_of_a_cell(table):
    text = io.StringIO()
    rows = [["text", "kind"], *[["a\tb\nc", "u"], ["a\n\nd", "v"]] * 6]
    csv.writer(text, "excel-tab", lineterminator="\n").writerows(rows)
    data = table(text.getvalue(), name="t.tsv", label="kind")
    assert len(data.train) + len(data.test) == 12
    code = 'y\n"if x:\n\treturn 1\n\treturn 2"\n"pass"\n'
    assert first_row(code, "code.csv", delimiter="\t") == ["y"]


def test_markers_of_missing_values_may_follow_a_space(table):
    rows = "".join(f"{-1 if k % 2 else k},{k},{'uv'[k // 2 % 2]}\n" for k in range(24))
    spaced = table(f"a,b,kind\n{rows}", missing="NA, -1")
    together = table(f"a,b,kind\n{rows}", missing="NA,-1")
    torch.testing.assert_close(spaced.train.inputs, together.train.inputs)
    assert spaced.preparation["missing"] == ["NA", "-1"]


def test_a_label_that_marks_a_missing_value_is_shown(table):
    rows = "".join(f"{k},{['DE', 'FR', 'NA'][k % 3]}\n" for k in range(30))
    with pytest.raises(UserError, match=r"'country' is 'NA', which marks a missing value"):
        table(f"a,country\n{rows}")
    assert table(f"a,country\n{rows}", missing="?").classes == ("DE", "FR", "NA")
    with pytest.raises(UserError, match=r"the label 'v' is missing\. Add it"):
        table("v,v,v\n" + "1,2,u\n2,1,w\n" * 9 + "3.5,2,?\n", label="2")


def test_labels_that_differ_in_case_are_doubted(table):
    rows = "".join(f"{k * k},{['cat', 'Cat', 'dog'][k % 3]}\n" for k in range(30))
    assert any(
        "'Cat', 'cat'" in text and "one class" in text
        for text in warnings_of(table(f"a,kind\n{rows}"))
    )


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["5 Jan 2020", "17 February 2021"], "of dates or times"),
        (["Mar 2020", "May 3, 2021"], "of dates or times"),
        (["2020-01", "2021-12"], "of dates or times"),
        (["20200105", "20211231"], "that look like dates"),
    ],
)
def test_dates_of_other_forms_are_warned_of(table, cells, form):
    rows = "".join(
        f"{k * k},{cells[k % 2]},{'uv'[k // 2 % 2]}\n".replace("May 3, 2021", '"May 3, 2021"')
        for k in range(40)
    )
    assert any(form in text for text in warnings_of(table(f"a,when,kind\n{rows}")))


def test_arff_with_a_comment_after_data_and_both_kinds_of_quotes_is_read(table):
    text = """@relation r
@attribute a numeric
@attribute kind {'deep red', "light blue"}
@data  % rows follow
1,"light blue"
2,"deep red"
3, "light blue"
4,"deep red"
"""
    data = table(text, name="t.arff", label="kind")
    assert data.classes == ("deep red", "light blue")
    apostrophe = text.replace("light blue", "it's blue")
    assert table(apostrophe, name="t.arff", label="kind").classes == ("deep red", "it's blue")


def test_a_test_table_that_is_the_training_table_is_doubted(tmp_path):
    rows = "".join(f"{k},{'ab'[k % 2]}\n" for k in range(20))
    (tmp_path / "t.csv").write_text(f"x,label\n{rows}")
    (tmp_path / "link.csv").symlink_to("t.csv")
    for test in ("t.csv", "./t.csv", "link.csv"):
        notes = load(f"table:t.csv?label=label&test={test}", root=tmp_path).notes
        text = f"test={test} is the training table, so the test rows are trained on too"
        assert (text, True) in [(note.text, note.doubtful) for note in notes]


def test_cells_may_be_long(table):
    before = csv.field_size_limit()
    long = "a" * 200_000
    rows = "".join(f'{k},"{long}, {k % 3}",{"ab"[k % 2]}\n' for k in range(20))
    data = table(f"x,text,label\n{rows}", drop="text")
    assert data.train.inputs.shape == (10, 1)
    assert csv.field_size_limit() == before


def test_the_path_of_a_set_of_uci_is_looked_up_like_others(tmp_path):
    rows = "".join(f"{k % 5},1,2,3,4,5,6,{k},{k % 2}\n" for k in range(40))
    (tmp_path / "of uci").mkdir()
    (tmp_path / "of uci" / "HTRU_2.csv").write_text(rows)
    for where in ("of uci", "of%20uci", "of uci/HTRU_2.csv"):
        assert len(load(f"htru2:{where}", root=tmp_path).train) == 32
    with pytest.raises(UserError, match="there is no folder or file of htru2 nowhere"):
        load("htru2:nowhere", root=tmp_path)

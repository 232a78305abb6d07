"""The six UCI data sets in the experiments of the mixup paper.

Zhang et al., 2018 (https://arxiv.org/abs/1710.09412, section 3.6). Each function is a data source.
Files are looked up in the folder after the colon, or in ``load_options.root``, in its subfolder
``uci``, and in subfolders of both that have the name of the data set. Numbers are normalized and
missing values filled in as described at ``vicinal.data.tables.load_table``.

Example:
    >>> iris = load_iris("", {}, LoadOptions(Path()))
    >>> iris.classes, len(iris.train), len(iris.test)
    (('setosa', 'versicolor', 'virginica'), 120, 30)
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vicinal.data.dataset import DataSet, LoadOptions
from vicinal.data.source_spec import existing
from vicinal.data.tables.assemble import assemble
from vicinal.data.tables.delimited_text import read_delimited_text
from vicinal.data.tables.read_table import read_table, read_text
from vicinal.data.tables.table import Table
from vicinal.errors import UserError
from vicinal.options import check_options

_FILES = {
    "abalone": ("abalone.data",),
    "arrhythmia": ("arrhythmia.data",),
    "htru2": ("HTRU_2.csv",),
    "phishing": ("phishing.data", "Training Dataset.arff"),
}
_NUMBERS = {"abalone": 1, "arcene": 167, "arrhythmia": 5, "htru2": 372, "phishing": 327}


def load_arcene(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load Arcene (https://doi.org/10.24432/C58P55): mass spectra of 10,000 values, two classes.

    The 100 training examples are the training split and the 100 validation examples the test
    split, since the labels of the original test split were never published.
    """
    check_options("arcene", options, ())
    tables = []
    for split in ("arcene_train", "arcene_valid"):
        rows, labels = (
            _find("arcene", (f"{split}.{ending}",), where, load_options)
            for ending in ("data", "labels")
        )
        text, label_text = (
            read_text(path, path.name, load_options.max_bytes).rstrip("\n")
            for path in (rows, labels)
        )
        lines, label_lines = text.split("\n"), label_text.split("\n")
        if len(lines) != len(label_lines):
            raise UserError(
                f"{labels.name} has {len(label_lines)} labels for the {len(lines)} rows of "
                f"{rows.name}. Use files of the same archive."
            )
        joined = "\n".join(map(" ".join, zip(lines, label_lines, strict=True)))
        table = read_delimited_text(joined, rows.name, False, max_bytes=load_options.max_bytes)
        tables.append(replace(table, names=(*table.names[:-1], "label")))
    return assemble(
        tables, label=len(tables[0].names) - 1, load_options=load_options, task="classification"
    )


def load_iris(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load Iris (https://doi.org/10.24432/C56C76), which comes with scikit-learn: 150 flowers of
    three kinds, 4 measures.
    """
    import pyarrow as pa
    from sklearn import datasets

    check_options("iris", options, ())
    iris = datasets.load_iris()
    columns = [*iris.data.T, iris.target_names[iris.target]]
    table = Table(
        "iris",
        (*iris.feature_names, "species"),
        [pa.array(column.tolist()).cast(pa.large_string()) for column in columns],
        ("number",) * 4 + ("category",),
        np.arange(len(iris.data)) + 1,
        {},
    )
    return assemble([table], label=4, load_options=load_options)


def _one_table(
    name: str, where: str, options: Mapping[str, str], load_options: LoadOptions
) -> DataSet:
    """Load a data set that is one table, with its label in the last column.

    The examples of classes with too few examples for both splits are in the training split.
    """
    check_options(name, options, ())
    path = _find(name, _FILES[name], where, load_options)
    header = None if path.suffix.lower() == ".arff" else False
    table = read_table(path, file=path.name, header=header, max_bytes=load_options.max_bytes)
    # Phishing's ARFF file declares -1, 0 and 1 as names; as numbers, they keep their order.
    table = replace(table, kinds=(None,) * len(table.kinds))
    return assemble(
        [table],
        label=len(table.names) - 1,
        load_options=load_options,
        task="classification",
        rare="train",
    )


load_abalone = functools.partial(_one_table, "abalone")
"""Abalone (https://doi.org/10.24432/C55C7W): 4,177 shells, 7 measures and the sex.

The 28 classes are the numbers of rings, which agrees with the error of about 74% in the paper.
Seven of them have one or two examples.
"""

load_arrhythmia = functools.partial(_one_table, "arrhythmia")
"""Arrhythmia (https://doi.org/10.24432/C5BS32): 452 electrocardiograms, 279 numbers.

The file has 13 of 16 classes, named by their numbers.
"""

load_htru2 = functools.partial(_one_table, "htru2")
"""HTRU2 (https://doi.org/10.24432/C5DK6R): 17,898 candidates for pulsars, 8 numbers."""

load_phishing = functools.partial(_one_table, "phishing")
"""Phishing Websites (https://doi.org/10.24432/C51W2X): 11,055 pages, 30 features.

Features are -1 (phishing), 0 (suspicious) and 1 (legitimate), and are read as numbers. Classes are
-1 (phishing) and 1 (legitimate).
"""


def _find(name: str, files: tuple[str, ...], where: str, load_options: LoadOptions) -> Path:
    """Return the file under one of its names, in one of the folders that it may be in."""
    root = load_options.root
    if where:
        root = existing(where, root, what=f"folder or file of {name}")
        if root.is_file() and name in _FILES:  # whose data sets are one file
            return root
    names = [file.lower() for file in files]
    try:
        for folder in (root, root / name, root / "uci", root / "uci" / name):
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.name.lower() in names:
                    return path
    except (OSError, ValueError) as error:
        raise UserError(f"{root} cannot be listed ({error}). Check its permissions.") from error
    raise UserError(
        f"{name} needs the file {' or '.join(files)} in {root} or {root / 'uci'}. Download it from "
        f"https://archive.ics.uci.edu/dataset/{_NUMBERS[name]}."
    )

"""The six data sets of the UCI repository in the experiments of mixup.

Zhang et al., 2018 (https://arxiv.org/abs/1710.09412, section 3.6). Every function has the
signature of a data source. Files are looked for in the folder behind the colon if there is one,
else in ``wanted.root``; there, in its folder ``uci``, and in a folder named like the set in
either. Numbers are normalized, and what is missing filled in, as
``vicinal.data.tables.load_table`` says.

Example:
    >>> iris = load_iris("", {}, LoadOptions(Path()))
    >>> iris.classes, len(iris.train), len(iris.test)
    (('setosa', 'versicolor', 'virginica'), 120, 30)
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, Split
from vicinal.data.source_spec import check_options
from vicinal.data.tables.assemble import assemble, check_preparation
from vicinal.data.tables.columns import Column, apply_columns, fit_columns
from vicinal.data.tables.delimited_text import Table
from vicinal.data.tables.read_table import read_table
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError

_FILES = {
    "abalone": ("abalone.data",),
    "arrhythmia": ("arrhythmia.data",),
    "htru2": ("HTRU_2.csv",),
    "phishing": ("phishing.data", "Training Dataset.arff"),
}
_NUMBERS = {"abalone": 1, "arcene": 167, "arrhythmia": 5, "htru2": 372, "phishing": 327}


def load_abalone(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Abalone (https://doi.org/10.24432/C55C7W): 4,177 shells, 7 measures and the sex.

    The 28 classes are the numbers of rings, which agrees with the error of about 74 % in the paper.
    Seven of them have one or two examples, too few for both splits, and are in the training split.
    """
    return _one_table("abalone", where, options, wanted)


def load_arrhythmia(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Arrhythmia (https://doi.org/10.24432/C5BS32): 452 electrocardiograms, 279 numbers.

    The file has 13 of 16 classes, named by their numbers. Classes with too few examples for both
    splits are in the training split.
    """
    return _one_table("arrhythmia", where, options, wanted)


def load_htru2(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load HTRU2 (https://doi.org/10.24432/C5DK6R): 17,898 candidates for pulsars, 8 numbers."""
    return _one_table("htru2", where, options, wanted)


def load_phishing(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Phishing Websites (https://doi.org/10.24432/C51W2X): 11,055 pages, 30 features.

    Features are -1, 0 and 1, from suspicious to legitimate, and taken as numbers. Classes are -1
    and 1.
    """
    return _one_table("phishing", where, options, wanted)


def load_arcene(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Arcene (https://doi.org/10.24432/C58P55): mass spectra of 10,000 values, two classes.

    The 100 training examples are the training split and the 100 validation examples the test
    split, since the labels of the original test split were never published.
    """
    check_options("arcene", options, ())
    tables = []
    for part in ("arcene_train", "arcene_valid"):
        data, labels = (
            _found("arcene", (f"{part}.{ending}",), where, wanted) for ending in ("data", "labels")
        )
        tables.append(_with_labels(_read(data, wanted), _labels(labels, wanted)))
    return assemble(tables, label=-1 % len(tables[0].names), wanted=wanted, task="classification")


def load_iris(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Iris (https://doi.org/10.24432/C56C76), which comes with scikit-learn: 150 flowers of
    three kinds, 4 measures.
    """
    from sklearn import datasets

    check_options("iris", options, ())
    flowers = datasets.load_iris()
    none = np.zeros(len(flowers.data), dtype=bool)
    columns = [
        Column(name, "number", values, none, none, None)
        for name, values in zip(flowers.feature_names, flowers.data.T, strict=True)
    ]
    classes = tuple(str(name) for name in flowers.target_names)
    targets = torch.from_numpy(flowers.target.astype(np.int64))
    given = wanted.preparation
    rows = train_test_rows(
        targets, fraction=wanted.test_fraction, seed=wanted.seed, classes=classes
    )
    if given is not None:
        check_preparation(given, "iris")
        if list(given["numbers"]["columns"]) != [column.name for column in columns]:
            raise UserError("iris does not have the columns of the training; name the same data")
    preparation = given or {
        "kind": "table",
        "sha256": "",
        "label": "",
        "classes": list(classes),
        "missing": [],
        **fit_columns(columns, rows[0]),
    }
    train, test = (
        Split(
            torch.from_numpy(apply_columns(columns, preparation, split_rows)[0]),
            targets[split_rows],
        )
        for split_rows in rows
    )
    return DataSet(classes, train=train, test=test, preparation=preparation)


TABLES: dict[str, Callable[[str, Mapping[str, str], LoadOptions], DataSet]] = {
    "abalone": load_abalone,
    "arcene": load_arcene,
    "arrhythmia": load_arrhythmia,
    "htru2": load_htru2,
    "iris": load_iris,
    "phishing": load_phishing,
}
"""The sets by their short names."""


def _one_table(name: str, where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    check_options(name, options, ())
    table = _read(_found(name, _FILES[name], where, wanted), wanted)
    return assemble(
        [table],
        label=len(table.names) - 1,
        wanted=wanted,
        task="classification",
        rare="train",
    )


def _found(name: str, files: tuple[str, ...], where: str, wanted: LoadOptions) -> Path:
    """Return the file under one of its names, in one of the folders it may lie in."""
    root = Path(where).expanduser() if where else wanted.root
    folders = [folder for top in (root, root / "uci") for folder in (top, top / name)]
    names = [file.lower() for file in files]
    try:
        for folder in folders:
            for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                if path.name.lower() in names:
                    return path
    except (OSError, ValueError) as error:
        raise UserError(f"{root} cannot be listed ({error}). Check its permissions.") from error
    raise UserError(
        f"{name} needs the file {' or '.join(files)} in {root} or {root / 'uci'}; it is in "
        f"https://archive.ics.uci.edu/dataset/{_NUMBERS[name]}"
    )


def _read(path: Path, wanted: LoadOptions) -> Table:
    if path.suffix.lower() == ".arff":
        table = read_table(path, file=path.name, max_bytes=wanted.max_bytes)
        # Phishing declares -1, 0 and 1 as names; as numbers they keep their order.
        return replace(table, kinds=(None,) * len(table.kinds))
    return read_table(path, file=path.name, header=False, max_bytes=wanted.max_bytes)


def _labels(path: Path, wanted: LoadOptions) -> Table:
    labels = read_table(path, file=path.name, header=False, max_bytes=wanted.max_bytes)
    for sentence in labels.bad.values():
        raise UserError(sentence)
    return labels


def _with_labels(data: Table, labels: Table) -> Table:
    import pyarrow as pa

    rows = len(data.rows) + len(data.bad)
    if len(labels.rows) != rows:
        raise UserError(
            f"{labels.file} has {len(labels.rows)} labels for the {rows} rows of {data.file}; "
            "Use files of the same archive."
        )

    # Rows of the wrong length are left out, their labels with them.
    every = np.sort(np.concatenate([data.rows, np.array(list(data.bad), dtype=np.int64)]))
    own = labels.columns[0].take(pa.array(np.searchsorted(every, data.rows)))
    return replace(
        data,
        names=(*data.names, "label"),
        columns=[*data.columns, own],
        kinds=(*data.kinds, None),
    )

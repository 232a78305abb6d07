"""Load a data set by the string that names its source."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
from vicinal.data.dataset import IN_MEMORY, DataSet, LoadOptions, Note, Split
from vicinal.data.description import doubtful_notes
from vicinal.data.preparation import prepared, with_preparation
from vicinal.data.recognize import recognized
from vicinal.data.source_spec import parse_spec
from vicinal.data.train_test_split import (
    group_notes,
    rows_by_options,
    with_train_fraction,
    with_validation,
)
from vicinal.errors import UserError
from vicinal.extras import extras_named
from vicinal.options import check_options


@extras_named()
def load(
    spec: str,
    *,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    test_fraction: float = TEST_FRACTION,
    skip_bad: bool = False,
    in_memory: int = IN_MEMORY,
    max_bytes: int = MAX_BYTES,
    preparation: Mapping[str, Any] | None = None,
    fold: tuple[int, int] | None = None,
    validation_fraction: float = 0,
    train_fraction: float = 1,
) -> DataSet:
    """Load a data set.

    A source is written ``NAME``, ``NAME:WHERE`` or ``NAME:WHERE?option=value&option=value``, where
    NAME is one of ``vicinal.data.SOURCES`` (``vicinal data list`` shows them). What WHERE and the
    options mean is documented at the function that ``SOURCES`` names, such as
    ``vicinal.data.formats.image_folder.load_folder``. ``vicinal.data.recognized`` finds the source
    of a plain path.

    Args:
        spec: the source, such as ``"cifar10"``, ``"folder:flowers?size=64"``,
            ``"rec:train.rec,test.rec"`` or ``"table:cars.csv?label=price"``; or a path, such as
            ``"flowers"``, whose source and options are guessed, with notes.
        root: folder of data sets. Relative paths are looked up there first, then in the working
            directory. The default is the environment variable ``VICINAL_DATA``, or the folder
            ``data``.
        seed: seed of the train/test split, where the data set has no test split.
        test_fraction: share of its examples that become test examples, in ``(0, 1)``; the same
            share of every class.
        skip_bad: whether examples that cannot be read are skipped and listed in ``Split.skipped``.
            Otherwise the first one raises an error.
        in_memory: most bytes of the inputs of a split that are read into memory; larger inputs
            stay in files, if the source can read them when they are needed.
        max_bytes: most bytes that one file may take once it is decoded. A larger file raises
            an error before memory is allocated for it.
        preparation: ``DataSet.preparation`` of an earlier call, such as that of the data a
            network was trained on, to be applied exactly. None fits a new one to the training
            split.
        fold: ``(k, folds)`` for K-fold cross-validation: the test split is the ``k``-th, from 0, of
            ``folds`` parts of equal size, which depend on ``seed``, instead of ``test_fraction``.
            Every example is tested in exactly one fold. Parts get the same share of every class,
            or of every quantile of a real value.
        validation_fraction: share of the training examples that become validation examples, in
            ``[0, 1)``; the same share of every class, except that classes too small for both
            splits stay in the training split. A validation split of the data set is used instead
            if there is one.
        train_fraction: share of the training examples that is kept, in ``(0, 1]``, before a
            validation split is cut; the same share of every class. Test examples are unchanged.

    Returns:
        Splits ``train``, ``test`` and perhaps ``validation``, each with ``inputs`` and ``targets``.
        Inputs are images ``(n, channels, height, width)`` uint8, rows of a table
        ``(n, features)`` float32, features of recordings, float32, or tokens of texts
        ``(n, length)`` int64. Targets are ``(n,)`` int64
        classes, named by ``classes``, or real values, ``(n,)`` or ``(n, k)`` float32.

    Raises:
        MissingExtraError: if the source needs a package that is not installed.
        UserError: if there is no such source or option, or a file is missing, damaged, or does not
            fit the others or ``preparation`` (the message names the file and the row); if ``fold``
            is given and the data set has a test split of its own; or if a group of examples is in
            two splits.

    Example:
        >>> digits = load("digits", test_fraction=0.3)
        >>> len(digits.train), len(digits.test), digits.train.inputs.shape[1:]
        (1257, 540, torch.Size([1, 8, 8]))
    """
    k, folds = fold if fold and len(fold) == 2 else (-1 if fold else 0, 2)
    for fits, name, value, expected in (
        (0 < test_fraction < 1, "test_fraction", test_fraction, "a share between 0 and 1"),
        (
            isinstance(seed, Integral) and 0 <= seed < 1 << 32,
            "seed",
            seed,
            f"an integer from 0 to {(1 << 32) - 1}",
        ),
        (max_bytes > 0, "max_bytes", max_bytes, "a positive number of bytes"),
        (folds >= 2 and 0 <= k < folds, "fold", fold, "(k, folds) with 0 <= k < folds >= 2"),
        (
            0 <= validation_fraction < 1,
            "validation_fraction",
            validation_fraction,
            "a share from 0 to below 1",
        ),
        (0 < train_fraction <= 1, "train_fraction", train_fraction, "a share above 0, up to 1"),
    ):
        if not fits:
            raise UserError(f"{name}: expected {expected}, got {value!r}")
    load_options = LoadOptions(
        *(data_root(root), seed, test_fraction, skip_bad, in_memory, max_bytes, preparation),
        *(fold, validation_fraction, train_fraction),
    )
    guess = preparation is None
    found = recognized(spec, root=load_options.root, guess=guess, max_bytes=max_bytes)
    source = with_preparation(parse_spec(found.spec), preparation)
    module, _, name = SOURCES[source.name].function.partition(":")
    function = getattr(import_module(f"vicinal.data.{module}"), name)
    data = prepared(function(source.where, source.options, load_options), source, preparation)
    if fold is not None and data.fixed_test:
        raise UserError(
            f"fold: {spec} has a test split of its own, so it cannot be divided into {folds} "
            "folds. Test on that split, or name a source that has none."
        )
    if data.preparation["kind"] != "table":  # whose statistics are those of the rest
        data = with_train_fraction(data, train_fraction, seed)
        data = with_validation(data, validation_fraction, seed)
    data = _with_different_names(data)
    notes = (*found.notes, *data.notes, *group_notes(data), *doubtful_notes(data))
    if train_fraction < 1 and len(data.train):
        text = f"{100 * train_fraction:g}% of the training examples are used (train_fraction)"
        notes = (*notes, Note(text))
    return replace(data, notes=notes)


def _with_different_names(data: DataSet) -> DataSet:
    """Number the classes whose names are repeated, such as the two cranes of ImageNet."""
    counts = Counter(data.classes)
    repeated = [name for name, count in counts.items() if count > 1]
    if not repeated:
        return data
    classes = tuple(
        f"{name} ({k})" if counts[name] > 1 else name for k, name in enumerate(data.classes)
    )
    text = f"names of several classes, which got numbers: {', '.join(repeated[:10])}"
    return replace(data, classes=classes, notes=(*data.notes, Note(text)))


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that data sets are looked up in and downloaded to.

    Example:
        >>> data_root("~/sets").is_absolute()
        True
    """
    path = Path(root or os.environ.get("VICINAL_DATA") or "data")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: after ~, there is no such user. Write the full path.") from error


def load_digits(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``digits``, the 1,797 images of 8x8 pixels in scikit-learn, values 0 to 16.

    They are the test split of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and
    Kaynak, 1998).
    """
    from sklearn import datasets

    if where:
        raise UserError(
            f"digits is part of scikit-learn and has no path, got {where!r}. Remove it."
        )
    check_options("digits", options, ())
    digits = datasets.load_digits()
    classes = tuple(str(name) for name in digits.target_names)
    inputs = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    targets = torch.from_numpy(digits.target.astype(np.int64))
    rows = rows_by_options(targets, load_options, classes)
    train, test = (Split(inputs[chosen], targets[chosen]) for chosen in rows)
    return DataSet(classes, train, test, brightest=16, fixed_test=False)

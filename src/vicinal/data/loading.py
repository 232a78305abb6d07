"""Data sources: a short name in, a data set out."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vicinal.data.catalog import MAX_BYTES, SOURCES, TEST_FRACTION
from vicinal.data.dataset import IN_MEMORY, DataSet, LoadOptions, OnBad, Split
from vicinal.data.sanity import sanity_notes
from vicinal.data.saved_preparation import prepared, with_preparation
from vicinal.data.source_spec import Spec, check_options, parse
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError, unknown
from vicinal.extras import extras_named


@extras_named()
def load(
    spec: str,
    *,
    root: str | os.PathLike[str] | None = None,
    seed: int = 0,
    test_fraction: float = TEST_FRACTION,
    on_bad: OnBad = "raise",
    in_memory: int = IN_MEMORY,
    max_bytes: int = MAX_BYTES,
    preparation: Mapping[str, Any] | None = None,
) -> DataSet:
    """Load a data set by what names it.

    ``NAME``, ``NAME:WHERE`` or ``NAME:WHERE?option=value&option=value``, where NAME is one of
    ``SOURCES``; what WHERE and the options mean says the function of the source, such as
    ``vicinal.data.formats.image_folder.load_folder``.

    Args:
        spec: such as ``"cifar10"``, ``"folder:flowers?size=64"``, ``"rec:train.rec,test.rec"`` or
            ``"table:cars.csv?label=price"``.
        root: folder that paths are looked for under before they are taken as they stand; the
            environment variable ``VICINAL_DATA`` where it is None, and where that is not set, the
            folder ``data``.
        seed: decides the splits of a set that comes in one.
        test_fraction: of a set that comes in one split the share to test on, in ``(0, 1)``, the
            same in every class.
        on_bad: ``"raise"`` stops at the first example that cannot be read, ``"skip"`` leaves it
            out and keeps a sentence about it in ``Split.skipped``.
        in_memory: the most bytes that the inputs of a split may take in memory; larger ones are
            read when they are asked for, where the source can do that.
        max_bytes: the most bytes that one file may take once it is decoded. A larger file raises
            an error before memory is allocated for it.
        preparation: the ``DataSet.preparation`` of an earlier call, such as that of the data a
            network was trained on, to be applied exactly: its options are added to ``spec``. None
            fits a new one to the training split.

    Returns:
        ``classes`` and the splits ``train``, ``test`` and perhaps ``validation``, each with
        ``inputs`` ``(n, ...)`` and ``targets`` ``(n,)``.

    Raises:
        MissingExtraError: if the source needs a package that is not installed.
        UserError: if there is no such source, or something is wrong with its files: which, where,
            and what to try; if the data cannot be prepared as ``preparation`` says.

    Example:
        >>> digits = load("digits", test_fraction=0.3)
        >>> len(digits.train), len(digits.test), digits.train.inputs.shape[1:]
        (1257, 540, torch.Size([1, 8, 8]))
    """
    if not 0 < test_fraction < 1:
        raise UserError(f"test_fraction = {test_fraction}: wanted a share between 0 and 1")
    if not 0 <= seed < 1 << 32:
        raise UserError(f"seed = {seed}: wanted a whole number from 0 below {1 << 32}")
    if on_bad not in {"raise", "skip"}:
        raise UserError(f'on_bad = "{on_bad}": wanted "raise" or "skip"')
    if max_bytes < 1:
        raise UserError(f"max_bytes = {max_bytes}: expected a positive number of bytes")
    load_options = LoadOptions(
        data_root(root), seed, test_fraction, on_bad, in_memory, max_bytes, preparation
    )
    taken = with_preparation(parse_known(spec), preparation)
    data = _function(taken.name)(taken.where, taken.options, load_options)
    data = prepared(data, taken, preparation)
    return replace(data, notes=(*data.notes, *sanity_notes(data)))


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that data sets are looked for under and downloaded to.

    Example:
        >>> data_root("~/sets").is_absolute()
        True
    """
    path = Path(root or os.environ.get("VICINAL_DATA") or "data")
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(f"{path} begins with the home of somebody who is not here") from error


def parse_known(spec: str) -> Spec:
    """Take what names a data set apart, and refuse a source that there is not.

    Raises:
        UserError: if there is no such source; the nearest name is shown.

    Example:
        >>> parse_known("digit")
        Traceback (most recent call last):
        vicinal.errors.UserError: there is no data source 'digit'; did you mean 'digits'? ...
    """
    taken = parse(spec)
    if "." in taken.name and taken.name not in SOURCES:
        inside = f"{taken.name}:{taken.where}" if taken.where else taken.name
        return Spec("import", inside, taken.options)
    if taken.name not in SOURCES:
        raise UserError(unknown("data source", taken.name, SOURCES))
    return taken


def _function(name: str) -> Callable[[str, Mapping[str, str], LoadOptions], DataSet]:
    module, _, function = SOURCES[name].function.partition(":")
    found: Callable[[str, Mapping[str, str], LoadOptions], DataSet] = getattr(
        import_module(f"vicinal.data.{module}"), function
    )
    return found


def _digits(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """The 1,797 8x8 scans that come with scikit-learn: the test split of the UCI set "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), values 0 to 16.
    """
    from sklearn.datasets import load_digits

    if where:
        raise UserError(f"digits comes with scikit-learn and has no path, got {where!r}")
    check_options("digits", options, ())
    digits = load_digits()
    classes = tuple(str(name) for name in digits.target_names)
    inputs = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    targets = torch.from_numpy(digits.target.astype(np.int64))
    rows = train_test_rows(
        targets, fraction=load_options.test_fraction, seed=load_options.seed, classes=classes
    )
    train, test = (Split(inputs[chosen], targets[chosen]) for chosen in rows)
    return DataSet(classes, train, test, brightest=16)

"""Data sets of Hugging Face, torchvision, and any importable module."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vicinal.data.dataset import DataSet, LoadOptions, Note
from vicinal.data.formats.file_listing import SPLIT_NAMES, splits_by_name
from vicinal.data.formats.images import IMAGE_OPTIONS, image_options
from vicinal.data.formats.labels import target_notes
from vicinal.data.formats.map_style import (
    ColorError,
    RowFormat,
    is_map_style,
    read_split,
)
from vicinal.data.train_test_split import divided, rows_by_options
from vicinal.errors import UserError, unknown
from vicinal.import_path import import_object, imported, one_line
from vicinal.options import check_options


@dataclass(frozen=True, eq=False)
class _Columns:
    """Two columns of a Hugging Face data set, as a map-style one."""

    table: Any
    image: str
    label: str
    classes: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        found = self.table[row]
        return found[self.image], found[self.label]


def load_hugging_face(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``hf:NAME``, a data set of Hugging Face's library ``datasets``, which may download it.

    The splits are ``train`` and ``test``, or ``validation`` if there is no test split; a single
    one is split into both. Images are the column of type Image, classes the one of type ClassLabel.

    Options: ``config=NAME``; ``image=COLUMN`` and ``label=COLUMN``, where types are ambiguous;
    ``train=SPLIT``, ``test=SPLIT`` and ``validation=SPLIT``; ``size=N`` makes images N x N (the
    shorter side resized, the middle cut out); ``channels=1`` makes them gray and ``channels=3``
    RGB, by default gray if all of them are; ``exif`` and ``alpha`` as in ``load_folder``.

    Raises:
        UserError: if the library is missing or cannot load the data set, a split or column is
            missing, or a row differs from others; see ``load_imported``.
    """
    check_options("hf", options, ("config", "image", "label", *SPLIT_NAMES, *IMAGE_OPTIONS))
    library = imported("datasets", "hf:")
    name = f"hf:{where}"
    try:
        tables = library.load_dataset(where, options.get("config"))
    except Exception as error:  # the library raises errors of every kind
        raise UserError(f"{name} cannot be loaded ({one_line(error)}). Check its name.") from error
    chosen = _choose_splits(name, options, list(tables))
    features = tables[chosen["train"]].features
    image = _column(name, "image", library.Image, options, features)
    label = _column(name, "label", library.ClassLabel, options, features)
    classes = getattr(features[label], "names", None)
    sources = {}
    for split, word in chosen.items():
        table = tables[word].select_columns([image, label])
        sources[split] = f"{name}, split {word}", _Columns(table, image, label, classes)
    return _load(sources, options, load_options)


def load_torchvision(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``torchvision:NAME``, a class of ``torchvision.datasets`` such as ``SVHN``.

    Its files have to be under the root already; nothing is downloaded. Splits come from
    ``train=True`` and ``False`` or ``split="train"`` and ``"test"``, whichever the class takes; a
    single split is split into both.

    Options: ``train=SPLIT``, ``test=SPLIT`` and ``validation=SPLIT`` where the splits have other
    names (ImageNet's is ``test=val``); ``size``, ``channels``, ``exif`` and ``alpha`` as in
    ``load_folder``.

    Raises:
        UserError: if the library, the class or its files are missing, or a row differs from
            others; see ``load_imported``.
    """
    check_options("torchvision", options, (*SPLIT_NAMES, *IMAGE_OPTIONS))
    library = imported("torchvision", "torchvision:").datasets
    if where not in library.__all__:
        raise UserError(unknown("data set of torchvision", where, library.__all__))
    make = getattr(library, where)
    takes = inspect.signature(make).parameters
    named = {key: value for key, value in options.items() if key in SPLIT_NAMES}
    arguments: dict[str, dict[str, Any]] = {"train": {}}
    if "train" in takes and not named:
        arguments = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in takes:
        words = {"train": "train", "test": "test"} | named
        _check_distinct(f"torchvision:{where}", words)
        arguments = {split: {"split": word} for split, word in words.items()}
    elif named:
        raise UserError(f"torchvision:{where} has no named splits, got {next(iter(named))}=.")
    root = {"root": str(load_options.root)} if "root" in takes else {}
    sources = {}
    for split, some in arguments.items():
        try:
            sources[split] = f"torchvision:{where}, {split} split", make(**root, **some)
        except Exception as error:  # each class has its own
            raise UserError(
                f"torchvision:{where}: no {split} split under {load_options.root} "
                f"({one_line(error)}). torchvision.datasets.{where}(..., download=True) downloads "
                f"it if it can. {split}=NAME names another split."
            ) from error
    return _load(sources, options, load_options)


def load_imported(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``import:MODULE:NAME`` or ``MODULE.NAME``.

    This names a map-style data set (``len(d)`` and ``d[row]``, which is ``(input, target)``), a
    tuple of two or three (train, test, validation), or a function or class that makes one of these
    without arguments. A single one is split into train and test. Modules of the working
    directory are found too.

    Inputs are Pillow images of any mode (gray if all are gray, else RGB; ``(channels, height,
    width)`` uint8), uint8 arrays ``(height, width[, channels])`` or tensors ``([channels,] height,
    width)`` of 1 or 3 channels, or floating-point arrays and tensors of any shape, which become
    float32. Targets are integers (classes, named by the attribute ``classes`` if there is one),
    floating-point numbers, or vectors of these. All rows are read once to check that they have one
    shape; inputs larger than ``load_options.in_memory`` are read again when they are needed.

    Options: ``size``, ``channels``, ``exif`` and ``alpha`` as in ``load_hugging_face``.

    Raises:
        UserError: if the path cannot be imported or does not name a data set; if a row raises an
            error, or differs from the first one in shape or type.
    """
    check_options("import", options, IMAGE_OPTIONS)
    module, _, name = where.partition(":") if ":" in where else where.rpartition(".")
    if not module or not name:
        raise UserError(f"import:{where}: expected MODULE:NAME, such as import:mydata:train.")
    found = import_object(f"{module}:{name}")
    if isinstance(found, type) or (callable(found) and not is_map_style(found)):
        try:
            found = found()
        except Exception as error:  # code of the user
            raise UserError(f"{where}() failed ({one_line(error)}).") from error
    several = found if isinstance(found, tuple) and 2 <= len(found) <= 3 else (found,)
    sources = {
        split: (where if len(several) == 1 else f"{where}, {split} split", one)
        for split, one in zip(SPLIT_NAMES, several, strict=False)
    }
    return _load(sources, options, load_options)


def _choose_splits(name: str, options: Mapping[str, str], found: list[str]) -> dict[str, str]:
    """Return which split of the library each of our splits is."""
    chosen = {split: options[split] for split in SPLIT_NAMES if split in options}
    for word in chosen.values():
        if word not in found:
            raise UserError(unknown(f"split of {name}", word, found))
    left = [word for word in found if word not in chosen.values()]
    if "train" not in chosen:
        if "train" not in left and len(found) > 1:
            raise UserError(
                f"{name}: expected a split train, got {', '.join(found)}. train=NAME names it."
            )
        chosen["train"] = "train" if "train" in left else found[0]
    chosen = splits_by_name({word: word for word in left if word in SPLIT_NAMES} | chosen)
    _check_distinct(name, chosen)
    if "validation" in options and "validation" not in chosen:
        raise UserError(
            f"{name}: expected a test split next to validation={options['validation']}, got none. "
            "test=NAME names it."
        )
    return chosen


def _check_distinct(name: str, chosen: Mapping[str, str]) -> None:
    if len(set(chosen.values())) < len(chosen):
        got = ", ".join(f"{split}={word}" for split, word in chosen.items())
        raise UserError(
            f"{name}: expected different splits for train, test and validation, got {got}. Name "
            "another split."
        )


def _column(
    name: str, what: str, kind: type, options: Mapping[str, str], features: Mapping[str, Any]
) -> str:
    """Return the column that an option names, or the only one of a type."""
    if what in options:
        if options[what] not in features:
            raise UserError(f"{name}: {unknown('column', options[what], features)}")
        return options[what]
    fitting = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
    raise UserError(
        f"{name}: expected one column of type {kind.__name__}, got {len(fitting)} among {columns}. "
        f"{what}=COLUMN names it."
    )


_MOST_CLASSES = 10_000
"""Larger labels without names of classes are quantities, unless there are as many examples."""


def _load(
    sources: Mapping[str, tuple[str, Any]],
    options: Mapping[str, str],
    load_options: LoadOptions,
) -> DataSet:
    """Read all splits, each a data set with its name for errors, in one format."""
    images = image_options(options, load_options.max_bytes)
    classes = _common_classes(sources)
    forced = "channels" in options

    format = RowFormat(images if forced else images._replace(channels=1), forced, classes)
    try:
        splits = _read_splits(sources, format, load_options)
    except ColorError:
        format = RowFormat(images, forced, classes)
        splits = _read_splits(sources, format, load_options)
    unused = format.target != "class" and classes
    if format.target != "class":
        classes = ()
    elif classes is None:
        count = 1 + max(int(split.targets.max()) for split in splits.values())
        if count > max(_MOST_CLASSES, sum(map(len, splits.values()))):
            name, _ = sources["train"]
            raise UserError(
                f"{name}: expected labels from 0 to one less than the number of classes, got "
                f"{count - 1}. If they are quantities, make them floats; otherwise number the "
                "classes from 0."
            )
        classes = tuple(map(str, range(count)))
    if "test" not in splits:
        whole = splits["train"]
        rows = rows_by_options(whole.targets, load_options, classes)
        splits["train"], splits["test"] = divided(whole, *rows)
    white = 255 if format.dtype == np.uint8 else None
    notes = (*format.changes.notes(all_read=True), *target_notes(splits["train"].targets.numpy()))
    if unused:
        notes = (*notes, Note("the names in classes are not used, since targets are not classes"))
    return DataSet(classes, **splits, brightest=white, notes=notes, fixed_test="test" in sources)


def _read_splits(
    sources: Mapping[str, tuple[str, Any]], format: RowFormat, load_options: LoadOptions
) -> dict[str, Any]:
    return {split: read_split(*source, format, load_options) for split, source in sources.items()}


def _common_classes(sources: Mapping[str, tuple[str, Any]]) -> tuple[str, ...] | None:
    """Return the names of the classes of the training split, None if it has no names.

    Raises:
        UserError: if another split numbers its classes differently.
    """
    found: tuple[str, ...] | None = None
    known: tuple[str, ...] | None = None
    for split, (name, source) in sources.items():
        names = getattr(source, "classes", None)
        if names is not None and not isinstance(names, list | tuple | np.ndarray):
            raise UserError(
                f"{name}: expected the attribute classes to be a list of names, in the order of "
                f"their numbers, got {type(names).__name__}."
            )
        own = None if names is None else tuple(map(_class_name, names))
        if split == "train":
            found = own
        known = known or own
        if known and own and any(a != b for a, b in zip(known, own, strict=False)):
            raise UserError(
                f"{name}: expected the classes {', '.join(known[:20])}, as in another split, "
                f"got {', '.join(own[:20])}. Number the classes of all splits in the same way."
            )
    return found


def _class_name(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)

"""Data sets of other libraries: Hugging Face's, torchvision's, and whatever can be imported."""

import inspect
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, SkippedExamples, Split
from vicinal.data.formats.exif import Looked, looks_of
from vicinal.data.formats.images import IMAGE_OPTIONS
from vicinal.data.formats.map_style import (
    ColorError,
    Form,
    Named,
    StoredItems,
    map_style,
    read_split,
    said,
)
from vicinal.data.source_spec import channels_option, check_options, positive
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError, unknown

HUGGING_FACE_OPTIONS = (
    "config",
    "image",
    "label",
    "train",
    "test",
    "validation",
    *IMAGE_OPTIONS,
)
TORCHVISION_OPTIONS = ("train", "test", "validation", *IMAGE_OPTIONS)
IMPORT_OPTIONS = IMAGE_OPTIONS


@dataclass(frozen=True, eq=False)
class _Columns:
    """Two columns of a Hugging Face data set, as a map-style one."""

    table: Any
    image: str
    label: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        found = self.table[row]
        return found[self.image], found[self.label]


def load_hugging_face(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``hf:NAME``, a data set of Hugging Face's library ``datasets``, which may download it.

    The splits are ``train`` and ``test``, or ``validation`` if there is no test split; a single
    one is divided. Images are the column of type Image, classes
    the one of type ClassLabel.

    Options: ``config=NAME``; ``image=COLUMN`` and ``label=COLUMN``, where types don't tell;
    ``train=SPLIT``, ``test=SPLIT`` and ``validation=SPLIT``; ``size=N`` makes images N x N (the
    shorter side resized, the middle cut out); ``channels=1`` makes them gray and ``channels=3``
    RGB, by default gray if all of them are; ``exif`` and ``alpha`` as in ``load_folder``.

    Raises:
        UserError: if the library is missing or cannot load the set, a split or column is not there,
            or a row does not fit; see ``load_imported``.
    """
    check_options("hf", options, HUGGING_FACE_OPTIONS)
    library = _library("datasets", "hf")
    name = f"hf:{where}"
    try:
        splits = library.load_dataset(where, options.get("config"))
    except Exception as error:  # as many kinds as there are ways to store data
        raise UserError(f"{name} cannot be loaded ({said(error)}); check its name") from error
    chosen = _choose_splits(name, options, list(splits))
    features = splits[chosen["train"]].features
    image = _column(name, "image", library.Image, options, features)
    label = _column(name, "label", library.ClassLabel, options, features)
    splits = {
        split: Named(
            f"{name}, split {word}",
            _Columns(splits[word].select_columns([image, label]), image, label),
        )
        for split, word in chosen.items()
    }
    return _load(splits, getattr(features[label], "names", None), options, load_options)


def load_torchvision(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``torchvision:NAME``, a class of ``torchvision.datasets`` such as ``SVHN``.

    Its files have to be under the root already; nothing is downloaded. Parts come from
    ``train=True`` and ``False`` or ``split="train"`` and ``"test"``, whichever the class takes; a
    set of one split is divided.

    Options: ``train=SPLIT``, ``test=SPLIT`` and ``validation=SPLIT`` where the splits have other
    names (ImageNet's is ``test=val``); ``size``, ``channels``, ``exif`` and ``alpha`` as in
    ``load_folder``.

    Raises:
        UserError: if the library is missing, there is no such class, its files are not there, or a
            row does not fit; see ``load_imported``.
    """
    check_options("torchvision", options, TORCHVISION_OPTIONS)
    _library("torchvision", "torchvision")
    library = _library("torchvision.datasets", "torchvision")
    if where not in library.__all__:
        raise UserError(unknown("data set of torchvision", where, library.__all__))
    make = getattr(library, where)
    takes = inspect.signature(make).parameters
    named = {key: value for key, value in options.items() if key not in IMAGE_OPTIONS}
    arguments: dict[str, dict[str, Any]]
    if "train" in takes and not named:
        arguments = {"train": {"train": True}, "test": {"train": False}}
    elif "split" in takes:
        arguments = {
            split: {"split": value}
            for split, value in ({"train": "train", "test": "test"} | named).items()
        }
    elif named:
        raise UserError(f"torchvision:{where} has no named splits, got {next(iter(named))}=")
    else:
        arguments = {"train": {}}
    if "root" in takes:
        arguments = {
            split: {"root": str(load_options.root), **some} for split, some in arguments.items()
        }
    splits = {}
    for split, some in arguments.items():
        try:
            splits[split] = Named(f"torchvision:{where}, {split} split", make(**some))
        except Exception as error:  # each class has its own
            raise UserError(
                f"torchvision:{where}: no {split} split ({said(error)}); its files were looked for "
                f"under {load_options.root}, where torchvision.datasets.{where}(..., "
                "download=True) puts them if it can, and test=NAME names another split"
            ) from error
    return _load(splits, _classes_of(splits["train"].dataset), options, load_options)


def load_imported(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load what an import path names: ``MODULE:NAME`` or ``MODULE.NAME``.

    That is a map-style data set (``len(d)`` and ``d[row]``, which is ``(input, target)``), a tuple
    of two or three (train, test, validation), or a function or class that makes one of these
    without arguments. A single one is divided into train and test. Modules are also looked for in
    the folder that the program was started in.

    Inputs are Pillow images of any mode (gray if all are gray, else RGB; ``(channels, height,
    width)`` uint8), uint8 arrays ``(height, width[, channels])`` or tensors ``([channels,] height,
    width)`` of 1 or 3 channels, or floating-point arrays and tensors of any shape, which become
    float32 as they are. Targets are whole numbers (classes, named by the attribute ``classes`` if
    there is one), floating-point numbers, or vectors of these. All rows are read once, to see that
    they fit together; inputs larger than ``load_options.in_memory`` are read again when needed.

    Options: ``size``, ``channels``, ``exif`` and ``alpha`` as in ``load_hugging_face``.

    Raises:
        UserError: if the path cannot be imported or does not name a data set; if a row raises
            anything, or differs from the first one in shape or kind, with the row's number.
    """
    check_options("import", options, IMPORT_OPTIONS)
    found = _imported(where)
    if isinstance(found, type) or (callable(found) and not map_style(found)):
        try:
            found = found()
        except Exception as error:  # somebody else's code
            raise UserError(f"{where}() failed ({said(error)})") from error
    several = found if isinstance(found, tuple) and 2 <= len(found) <= 3 else (found,)
    splits = {
        split: Named(where if len(several) == 1 else f"{where}, {split} split", one)
        for split, one in zip(("train", "test", "validation"), several, strict=False)
    }
    return _load(splits, _classes_of(splits["train"].dataset), options, load_options)


def _library(name: str, source: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"{source}: wants the library {package} ({error}); pip install {package} adds it"
        ) from error


def _imported(where: str) -> Any:
    module, _, name = where.partition(":") if ":" in where else where.rpartition(".")
    if not module or not name:
        raise UserError(f"import:{where}: wanted MODULE:NAME, such as import:mydata:train")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # a console script does not have it there
    try:
        found = import_module(module)
    except Exception as error:  # importing runs somebody else's code
        raise UserError(f"{where}: {module} cannot be imported ({said(error)})") from error
    for word in name.split("."):
        if not hasattr(found, word):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise UserError(unknown(f"name in {module}", word, names))
        found = getattr(found, word)
    return found


def _classes_of(dataset: Any) -> Iterable[Any] | None:
    classes: Iterable[Any] | None = getattr(dataset, "classes", None)
    return classes


def _choose_splits(name: str, options: Mapping[str, str], there: list[str]) -> dict[str, str]:
    chosen = {
        split: options[split] for split in ("train", "test", "validation") if split in options
    }
    for word in chosen.values():
        if word not in there:
            raise UserError(unknown(f"split of {name}", word, there))
    left = [word for word in there if word not in chosen.values()]
    if "train" not in chosen:
        if "train" not in left and len(there) > 1:
            raise UserError(f"{name} has the splits {', '.join(there)}; train=NAME names one")
        chosen["train"] = "train" if "train" in left else there[0]
    for split in ("test", "validation"):
        if split not in chosen and split in left:
            chosen[split] = split
    if "test" not in chosen and "validation" in chosen:
        chosen["test"] = chosen.pop("validation")
    if len(set(chosen.values())) < len(chosen):
        raise UserError(f"{name}: train, test and validation have to be different splits")
    return chosen


def _column(
    name: str, split: str, kind: type, options: Mapping[str, str], features: Mapping[str, Any]
) -> str:
    if split in options:
        if options[split] not in features:
            raise UserError(unknown(f"column of {name}", options[split], features))
        return options[split]
    fitting = [column for column, feature in features.items() if isinstance(feature, kind)]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
    raise UserError(
        f"{name} has {len(fitting) or 'no'} columns of type {kind.__name__}; {split}=COLUMN names "
        f"the one that is meant (there are: {columns})"
    )


def _load(
    splits: Mapping[str, Named],
    names: Iterable[Any] | None,
    options: Mapping[str, str],
    load_options: LoadOptions,
) -> DataSet:
    """Read all splits in one form, and name the classes."""
    size = positive("size", options)
    forced = channels_option(options) if "channels" in options else None
    looks = looks_of(options, load_options.max_bytes)
    looked = Looked()
    try:
        form = Form(size, gray=forced != 3, forced=forced, looks=looks, looked=looked)
        read, form = _read_splits(splits, form, load_options)
    except ColorError:
        looked = Looked()
        form = Form(size, gray=False, looks=looks, looked=looked)
        read, form = _read_splits(splits, form, load_options)
    classes: tuple[str, ...] = ()
    if form.target == "class":
        count = 1 + max(int(split.targets.max()) for split in read.values())
        classes = tuple(map(_word, names)) if names is not None else tuple(map(str, range(count)))
        named = ", ".join(classes[:20])
        for name, split in read.items():
            fits = split.targets < len(classes)
            skips = SkippedExamples(load_options.on_bad)
            for row in (~fits).nonzero().flatten().tolist():
                skips(
                    UserError(
                        f"{splits[name].name}: class {int(split.targets[row])} has no name; there "
                        f"are {len(classes)} ({named})"
                    )
                )
            if skips.sentences:
                kept = _chosen(split, fits.nonzero().flatten().numpy())
                read[name] = replace(kept, skipped=(*kept.skipped, *skips.sentences))
    if "test" not in read:
        rows = train_test_rows(
            read["train"].targets,
            fraction=load_options.test_fraction,
            seed=load_options.seed,
            classes=classes,
        )
        whole = read["train"]
        read = {
            "train": _chosen(whole, rows[0]),
            "test": replace(_chosen(whole, rows[1]), skipped=()),
        }
    images = form.dtype == np.uint8
    white = 255 if images else None
    notes = looked.notes(looks, size, every=True)
    return DataSet(classes, read["train"], read["test"], read.get("validation"), white, notes)


def _word(name: Any) -> str:
    return ", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name)


def _chosen(split: Split, rows: np.ndarray) -> Split:
    targets = split.targets[torch.from_numpy(rows)]
    if isinstance(split.inputs, StoredItems):
        return Split(replace(split.inputs, rows=split.inputs.rows[rows]), targets, split.skipped)
    return Split(split.read(rows.tolist()).inputs, targets, split.skipped)


def _read_splits(
    splits: Mapping[str, Named], form: Form, load_options: LoadOptions
) -> tuple[dict[str, Split], Form]:
    read = {}
    for split, named in splits.items():
        read[split], form = read_split(named, form, load_options)
    return read, form

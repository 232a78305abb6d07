"""NumPy's ``.npz`` files, ``npz:FILE``, and ``.npy`` files of new inputs."""

import functools
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.formats.bounded_read import check_claim, read_rest
from vicinal.data.formats.file_listing import SPLIT_NAMES
from vicinal.data.formats.labels import split_with_known_labels, target_notes
from vicinal.data.source_spec import existing
from vicinal.data.train_test_split import divided, rows_by_options
from vicinal.errors import UserError
from vicinal.options import check_options


def load_npz(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``npz:FILE``, as ``vicinal data convert`` and NumPy's ``savez`` write it.

    Arrays: ``train_images`` and ``test_images``, ``(n, height, width, channels)`` or
    ``(n, height, width)`` uint8, or ``train_inputs`` and ``test_inputs``, ``(n, ...)`` float32;
    ``train_labels`` and ``test_labels``, ``(n,)`` integers or floats; optionally ``classes``, their
    names, and a split ``validation``. The names of MedMNIST (``val_images``, labels ``(n, 1)``) and
    of Keras (``x_train``, ``y_train``) are known too. Without arrays for testing, or with arrays
    ``x`` and ``y`` alone, the examples are split by ``load_options``.

    Raises:
        UserError: if an array is missing or has a different shape or type, if the file is damaged,
            or if its arrays take more than ``load_options.max_bytes``.
    """
    check_options("npz", options, ())
    path = existing(where, load_options.root, what="npz file")
    arrays, unused = _read(path, load_options.max_bytes)
    if not {"train_labels", "train_images", "train_inputs"} & arrays.keys():
        raise UserError(
            f"{path}: expected arrays train_images (or train_inputs) and train_labels, or x and y, "
            f"got {', '.join(unused[:10]) or 'none'}. Rename them."
        )
    notes: list[Note] = []
    whole = not {f"test_{kind}" for kind in ("images", "inputs", "labels")} & arrays.keys()
    validation = any(name.startswith("validation_") for name in arrays)
    names = ["train", *(["validation"] if validation else [])]
    names += [] if whole else ["test"]
    read = {name: _arrays_of(path, arrays, name, notes) for name in names}
    unused += [f"{one}_inputs" for one in names if {f"{one}_images", f"{one}_inputs"} <= {*arrays}]
    inputs, targets = read["train"]
    classes: tuple[str, ...] = ()
    if targets.dtype == np.int64:
        count = int(targets.max()) + 1
        if "classes" not in arrays:
            if count > len(targets):
                raise UserError(
                    f"{path}, train_labels: expected labels below {len(targets)}, the number of "
                    f"examples, got {count - 1}. If there really are that many classes, add "
                    "an array 'classes' with their names."
                )
            notes.append(Note(f"the classes have no names; they are numbered 0 to {count - 1}"))
            if targets.min() > 0:
                text = f"labels start at {targets.min()}, so the classes below it have no examples"
                notes.append(Note(f"{text}. Save labels - {targets.min()}", doubtful=True))
        known = arrays.get("classes", np.arange(count).astype(str))
        if known.ndim != 1 or known.dtype.kind != "U":
            raise UserError(
                f"{path}: expected an array 'classes' of strings (n,), got {known.dtype} "
                f"{known.shape}."
            )
        classes = tuple(map(str, known))
    splits: dict[str, Any] = {}
    for name, (own, labels) in read.items():
        for what, found, first in (("inputs", own, inputs), ("labels", labels, targets)):
            kind, expected = ((x.dtype, tuple(x.shape[1:])) for x in (found, first))
            if kind != expected:
                raise UserError(
                    f"{path}, {name}: expected {what} with the dtype and shape of those in train, "
                    f"{expected}, got {kind}. Save both with the same dtype and shape."
                )
        if targets.dtype != np.int64:
            splits[name] = Split(own, torch.from_numpy(labels))
            continue
        place = functools.partial("{}, {}_labels, row {}".format, path, name)
        known_labels = range(len(classes))
        splits[name] = split_with_known_labels(
            own, labels, known_labels, place, load_options.skip_bad
        )
    if whole:
        rows = rows_by_options(splits["train"].targets, load_options, classes)
        splits["train"], splits["test"] = divided(splits["train"], *map(np.sort, rows))
    unused += ["classes"] * (not classes and arrays.get("classes", np.empty(0)).size > 0)
    if unused:
        notes.append(Note(f"arrays that are not read: {', '.join(unused[:10])}"))
    white = 255 if inputs.dtype == torch.uint8 else None
    return DataSet(classes, **splits, brightest=white, notes=tuple(notes), fixed_test=not whole)


def read_npy(path: Path, *, images: bool, max_bytes: int) -> Tensor:
    """Read a ``.npy`` file of inputs like those in an ``.npz`` file.

    Args:
        path: path of the file.
        images: whether these are images: ``(n, height, width, channels)`` or ``(n, height, width)``
            uint8.
        max_bytes: the most bytes that the array may take.

    Returns:
        ``(n, channels, height, width)`` uint8, or ``(n, ...)`` float32.

    Raises:
        UserError: if the file is damaged or too large, or has an array of another type.
    """
    try:
        array = npy.open_memmap(path, mode="c")  # writable, as PyTorch expects
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). Check its path and permissions."
        ) from error
    except Exception as error:  # NumPy raises errors of many kinds
        raise UserError(
            f"{path}: expected an array of numbers that numpy.save wrote, got something else "
            f"({error}). Convert it to numbers, and save it again."
        ) from error
    check_claim(path, array.nbytes, array.nbytes, max_bytes)
    if images:
        return _channels_first(f"{path}: expected images", array)
    return torch.from_numpy(_finite(f"{path}: expected finite floats", array))


def _read(path: Path, max_bytes: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays that are needed, and the names of the others."""
    arrays: dict[str, np.ndarray] = {}
    unused = []
    left = max_bytes
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                stored_name = entry.filename.removesuffix(".npy")
                name = _known_name(stored_name)
                with archive.open(entry) as file:  # this checks the name, which may be damaged
                    if name is None or name in arrays:
                        unused.append(stored_name)
                        continue
                    old = npy.read_magic(file) == (1, 0)
                    header = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
                    shape, fortran, dtype = header(file)
                    if dtype.hasobject:
                        raise UserError(
                            f"{path}, {stored_name}: expected numbers or strings, got Python "
                            "objects. Convert the array, such as by .astype(str), and save it "
                            "again."
                        )
                    size = math.prod(shape) * dtype.itemsize
                    check_claim(f"{path}, {name}", size, entry.compress_size, left)
                    left -= size
                    values = read_rest(file, size).view(dtype) if size else np.empty(0, dtype)
                arrays[name] = values.reshape(shape, order="F" if fortran else "C")
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise errors of every kind
        raise UserError(
            f"{path}: expected an npz file, got a damaged one ({error}). Save it again."
        ) from error
    return arrays, unused


def _known_name(name: str) -> str | None:
    """Return the name of an array in our own files, None for one that is not needed."""
    if name == "classes":
        return name
    name = {"x": "x_train", "y": "y_train"}.get(name.lower(), name)
    if name[:2].lower() in {"x_", "y_"}:  # Keras, scikit-learn
        name = f"{name[2:]}_{'inputs' if name[0].lower() == 'x' else 'labels'}"
    split, _, kind = name.rpartition("_")
    split = next((one for one, words in SPLIT_NAMES.items() if split.lower() in words), split)
    known = split in {"train", "validation", "test"} and kind in {"images", "inputs", "labels"}
    return f"{split}_{kind}" if known else None


def _arrays_of(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, notes: list[Note]
) -> tuple[Tensor, np.ndarray]:
    """Return the inputs of a split, and its labels: int64 or float32."""
    kind = "images" if f"{name}_images" in arrays else "inputs"
    values, labels = arrays.get(f"{name}_{kind}"), arrays.get(f"{name}_labels")
    if values is None or labels is None:
        raise UserError(
            f"{path}: expected {name}_images (or {name}_inputs) and {name}_labels, got "
            f"{', '.join(sorted(arrays)) or 'nothing'}."
        )
    if values.dtype.kind not in "US" and (values.ndim < 2 or not values.size):
        raise UserError(
            f"{path}: expected {name}_{kind} of shape (n, ...), got {values.shape}. A single "
            "number for each example has the shape (n, 1)."
        )
    if kind == "images" or (values.dtype == np.uint8 and values.ndim > 2):
        inputs = _channels_first(f"{path}: expected {name}_{kind}", values)
    else:
        expected = f"{path}: expected finite floats in {name}_inputs"
        inputs = torch.from_numpy(_finite(expected, values))
    if labels.dtype == bool:
        one = labels.ndim == 1 or labels.shape[1:] == (1,)
        labels = labels.astype(np.int64 if one else np.float32)
    integers = labels.dtype.kind in "iu"
    if integers and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
        notes.append(Note(f"{name}_labels of shape ({len(labels)}, 1) are read as {labels.shape}"))
    if labels.ndim not in ({1} if integers else {1, 2}) or len(labels) != len(values):
        raise UserError(
            f"{path}: expected {name}_labels of shape ({len(values)},), got {labels.dtype} "
            f"{labels.shape}. For several labels of an example (0 or 1), or several real values, "
            "use floats of shape (n, targets)."
        )
    if not integers:
        expected = f"{path}: expected classes from 0 or floats in {name}_labels"
        if labels.dtype.kind in "US":
            raise UserError(
                f"{expected}, got texts. Save numbers from 0, and an array 'classes' of names."
            )
        values = _finite(expected, labels)
        if name == "train":
            notes += target_notes(values)
        return inputs, values
    if labels.max() > 2**31:
        raise UserError(
            f"{path}: expected labels below the number of classes in {name}_labels, got "
            f"{labels.max()}."
        )
    return inputs, labels.astype(np.int64)


def _channels_first(expected: str, values: np.ndarray) -> Tensor:
    """Return images as ``(n, channels, height, width)`` uint8."""
    images = values[..., None] if values.ndim == 3 else values
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in {1, 3}:
        raise UserError(
            f"{expected} of type uint8 and shape (n, height, width) or (n, height, width, "
            f"channels) with 1 or 3 channels, got type {values.dtype} and shape {values.shape}. "
            "Convert the array."
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def _finite(expected: str, values: np.ndarray) -> np.ndarray:
    """Return floating-point values as float32, if it can hold them."""
    most = np.finfo(np.float32).max
    if values.dtype.kind != "f":
        advice = "Convert them by .astype(np.float32)."
        if values.dtype.kind in "US":
            advice = "Write texts into a CSV file, and read it as text:FILE?text=COLUMN."
        raise UserError(f"{expected}, got {values.dtype}. {advice}")
    if values.size and not max(-values.min(), values.max()) < most:
        small = np.abs(values) < most  # False for NaN
        row = int(small.reshape(len(values), -1).all(1).argmin())
        wrong = values[row][~small[row]].flat[0]
        raise UserError(f"{expected}, got {wrong} in row {row}. Correct or remove such rows.")
    return np.ascontiguousarray(values, np.float32)

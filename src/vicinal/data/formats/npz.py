"""One ``.npz`` file with everything in it: ``npz:FILE``."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.formats.labels import fitting
from vicinal.data.source_spec import check_options, existing
from vicinal.errors import UserError

_PIECE = 1 << 22


def load_npz(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load ``npz:FILE``, as ``vicinal data convert`` and NumPy's ``savez`` write it.

    Arrays: ``train_images`` and ``test_images``, ``(n, height, width, channels)`` or
    ``(n, height, width)`` uint8, or ``train_inputs`` and ``test_inputs``, ``(n, ...)`` float32;
    ``train_labels`` and ``test_labels``, ``(n,)`` integers or floats; ``classes``, names, which
    may be missing. A split ``validation`` is read too where it is there. The names of MedMNIST
    (``val_images``, labels ``(n, 1)``) and of Keras (``x_train``, ``y_train``) are known too.

    Raises:
        UserError: if an array is missing, of another shape or type, if the file is damaged, or if
            its arrays take more than ``wanted.max_bytes``.
    """
    check_options("npz", options, ())
    path = existing(where, wanted.root, what="npz file")
    arrays, unused = _read(path, wanted.max_bytes)
    notes: list[Note] = []
    read = {}
    for name in ("train", "validation", "test"):
        if name == "validation" and "validation_labels" not in arrays:
            continue
        read[name] = _part(path, arrays, name, notes)
    known = arrays.get("classes")
    inputs, targets = read["train"]
    classes: tuple[str, ...] = ()
    if not targets.is_floating_point():
        count = int(targets.max()) + 1
        if known is not None and (known.ndim != 1 or known.dtype.kind != "U"):
            raise UserError(f"{path}: classes is {known.dtype} {known.shape}, wanted names")
        if known is None and count > len(targets):
            raise UserError(f"{path}: train_labels has class {count - 1} among {len(targets)}")
        names = (str(k) for k in range(count)) if known is None else (str(k) for k in known)
        classes = tuple(names)
        if known is None:
            notes.append(Note(f"the classes have no names; they are numbered 0 to {count - 1}"))
    parts = {}
    for name, (own, labels) in read.items():
        if own.shape[1:] != inputs.shape[1:] or own.dtype != inputs.dtype:
            raise UserError(f"{path}: {name} and train have examples of different shape or type")
        if labels.dtype != targets.dtype:
            raise UserError(f"{path}: {name}_labels and train_labels are of different types")

        def say(row: int, name: str = name, labels: Tensor = labels) -> str:
            label = int(labels[row])
            here = f"{path}: {name}_labels has class {label} at row {row}"
            return f"{here}, where there are {len(classes)} classes; wanted classes from 0"

        parts[name] = (
            fitting(own, labels, len(classes), say, wanted) if classes else Split(own, labels)
        )
    if unused:
        notes.append(Note(f"arrays that are not read: {', '.join(unused[:10])}"))
    white = 255 if inputs.dtype == torch.uint8 else None
    validation = parts.get("validation")
    return DataSet(classes, parts["train"], parts["test"], validation, white, tuple(notes))


def _read(path: Path, max_bytes: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays that are needed, and the names of the others."""
    arrays: dict[str, np.ndarray] = {}
    unused = []
    taken = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = _known_name(entry.filename.removesuffix(".npy"))
                if name is None or name in arrays:
                    unused.append(entry.filename.removesuffix(".npy"))
                    archive.open(entry).close()  # checks its name, which may be damaged
                    continue
                with archive.open(entry) as file:
                    version = npy.read_magic(file)
                    read = (
                        npy.read_array_header_1_0
                        if version == (1, 0)
                        else npy.read_array_header_2_0
                    )
                    shape, fortran, dtype = read(file)
                    size = math.prod(shape) * dtype.itemsize
                    # Before anything is allocated: does the file hold what the header says?
                    if dtype.hasobject or size > 1032 * entry.compress_size:
                        raise UserError(
                            f"{path}: the header of {name} says {dtype} {shape}, which its "
                            f"{entry.compress_size} bytes cannot hold"
                        )
                    taken += size
                    if taken > max_bytes:
                        raise UserError(
                            f"{path}: its arrays up to {name}, {dtype} {shape}, take {taken} bytes "
                            f"once they are decoded, more than max_bytes = {max_bytes}; raise "
                            "max_bytes if the file is genuine"
                        )
                    data = np.empty(size, np.uint8)
                    done = 0
                    while done < size and (piece := file.read(min(size - done, _PIECE))):
                        data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
                        done += len(piece)
                    if done < size or file.read(1):
                        raise UserError(f"{path}: {name} has not the {shape} values of its header")
                values = np.frombuffer(data, dtype) if size else np.empty(0, dtype)
                arrays[name] = values.reshape(shape, order="F" if fortran else "C")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and the parser of headers raise what they like
        raise UserError(f"{path}: no npz file, or a damaged one ({error})") from error
    return arrays, unused


def _known_name(name: str) -> str | None:
    """Return the name of an array as ``convert`` writes it, None for one that is not needed."""
    if name == "classes":
        return name
    if name[:2] in {"x_", "y_"}:  # as Keras names them
        name = f"{name[2:]}_{'inputs' if name[0] == 'x' else 'labels'}"
    split, _, kind = name.rpartition("_")
    split = {"val": "validation"}.get(split, split)  # as MedMNIST names it
    known = split in {"train", "validation", "test"} and kind in {"images", "inputs", "labels"}
    return f"{split}_{kind}" if known else None


def _part(
    path: Path, arrays: Mapping[str, np.ndarray], name: str, notes: list[Note]
) -> tuple[Tensor, Tensor]:
    pictures, values = arrays.get(f"{name}_images"), arrays.get(f"{name}_inputs")
    if pictures is None and values is not None and values.dtype == np.uint8 and values.ndim > 2:
        pictures = values
    labels = arrays.get(f"{name}_labels")
    found = pictures if pictures is not None else values
    if found is None or labels is None:
        there = ", ".join(sorted(arrays)) or "nothing"
        raise UserError(
            f"{path}: wanted {name}_images (or {name}_inputs) and {name}_labels, found {there}"
        )
    if found.ndim < 2 or not found.size:
        raise UserError(f"{path}: {name} has inputs of shape {found.shape}, wanted (n, ...)")
    if labels.ndim not in {1, 2} or len(labels) != len(found) or not len(found):
        raise UserError(f"{path}: {name} has {len(found)} inputs and labels of {labels.shape}")
    if labels.ndim == 2 and labels.shape[1] == 1 and labels.dtype.kind in "iu":
        notes.append(
            Note(f"{name}_labels of shape {labels.shape} are read as {labels[:, 0].shape}")
        )
        labels = labels[:, 0]
    if pictures is not None:
        inputs = _pictures(path, name, pictures)
    elif found.dtype.kind == "f" and max(-found.min(), found.max()) < np.finfo(np.float32).max:
        inputs = torch.from_numpy(np.ascontiguousarray(found, np.float32))
    else:
        raise UserError(f"{path}: {name}_inputs is {found.dtype}, wanted finite floats")
    return inputs, _targets(path, name, labels)


def _pictures(path: Path, name: str, pictures: np.ndarray) -> Tensor:
    if pictures.ndim == 3:
        pictures = pictures[..., None]
    if pictures.ndim != 4 or pictures.dtype != np.uint8 or pictures.shape[3] not in {1, 3}:
        raise UserError(
            f"{path}: {name}_images is {pictures.dtype} {pictures.shape}, wanted uint8 "
            "(n, height, width, 1 or 3)"
        )
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


def _targets(path: Path, name: str, labels: np.ndarray) -> Tensor:
    if labels.dtype.kind == "f" and np.isfinite(labels).all():
        return torch.from_numpy(np.ascontiguousarray(labels, np.float32))
    if labels.dtype.kind in "iu" and labels.ndim == 2:
        raise UserError(
            f"{path}: {name}_labels is {labels.dtype} {labels.shape}, several labels an example, "
            "which vicinal cannot learn as classes; give one, (n,), or floats for real values"
        )
    if labels.dtype.kind in "iu":
        if labels.max() > 2**31:
            raise UserError(f"{path}: {name}_labels has {labels.max()}; no number of a class")
        return torch.from_numpy(labels.astype(np.int64))
    raise UserError(f"{path}: {name}_labels is {labels.dtype}, wanted classes from 0, or floats")

"""One ``.npz`` file with everything in it: ``npz:FILE``."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vicinal.data.dataset import DataSet, Part, Wanted
from vicinal.data.words import check_options, existing
from vicinal.errors import UserError

_PARTS = {"train": "train", "validation": "validation", "test": "test"}


def load_npz(where: str, options: Mapping[str, str], wanted: Wanted) -> DataSet:
    """Load ``npz:FILE``, as ``vicinal data convert`` and NumPy's ``savez`` write it.

    Arrays: ``train_images`` and ``test_images``, ``(n, height, width, channels)`` or
    ``(n, height, width)`` uint8, or ``train_inputs`` and ``test_inputs``, ``(n, ...)`` float32;
    ``train_labels`` and ``test_labels``, ``(n,)`` integers or floats; ``classes``, names, which
    may be missing. A part ``validation`` is read too where it is there.

    Raises:
        UserError: if an array is missing, of another shape or type, or the file is damaged.
    """
    check_options("npz", options, ())
    path = existing(where, wanted.root, what="npz file")
    arrays = _read(path)
    parts = {}
    for name in _PARTS:
        if name == "validation" and not any(key.startswith(name) for key in arrays):
            continue
        parts[name] = _part(path, arrays, name)
    known = arrays.get("classes")
    train = parts["train"]
    classes: tuple[str, ...] = ()
    if not train.targets.is_floating_point():
        count = int(train.targets.max()) + 1
        if known is not None and (known.ndim != 1 or known.dtype.kind != "U"):
            raise UserError(f"{path}: classes is {known.dtype} {known.shape}, wanted names")
        if known is None and count > len(train):
            raise UserError(f"{path}: train_labels has class {count - 1} among {len(train)}")
        names = (str(k) for k in range(count)) if known is None else (str(k) for k in known)
        classes = tuple(names)
    for name, part in parts.items():
        if (
            part.inputs.shape[1:] != train.inputs.shape[1:]
            or part.inputs.dtype != train.inputs.dtype
        ):
            raise UserError(f"{path}: {name} and train have examples of different shape or type")
        if part.targets.dtype != train.targets.dtype:
            raise UserError(f"{path}: {name}_labels and train_labels are of different types")
        if classes and len(bad := (part.targets >= len(classes)).nonzero()):
            row = int(bad[0])
            raise UserError(
                f"{path}: {name}_labels has class {int(part.targets[row])} at row {row}, "
                f"where there are {len(classes)} classes"
            )
    pictures = train.inputs.dtype == torch.uint8
    white = 255 if pictures else None
    return DataSet(classes, parts["train"], parts["test"], parts.get("validation"), brightest=white)


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as file:
                    version = npy.read_magic(file)
                    read = (
                        npy.read_array_header_1_0
                        if version == (1, 0)
                        else npy.read_array_header_2_0
                    )
                    shape, fortran, dtype = read(file)
                    count = math.prod(shape)
                    # Before anything is allocated: does the file hold what the header says?
                    if dtype.hasobject or count * dtype.itemsize > 1032 * entry.compress_size:
                        raise UserError(
                            f"{path}: the header of {name} says {dtype} {shape}, which its "
                            f"{entry.compress_size} bytes cannot hold"
                        )
                    data = bytearray(file.read(count * dtype.itemsize))
                    if len(data) < count * dtype.itemsize or file.read(1):
                        raise UserError(f"{path}: {name} has not the {shape} values of its header")
                values = np.frombuffer(data, dtype)
                arrays[name] = values.reshape(shape, order="F" if fortran else "C")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and the parser of headers raise what they like
        raise UserError(f"{path}: no npz file, or a damaged one ({error})") from error
    return arrays


def _part(path: Path, arrays: Mapping[str, np.ndarray], name: str) -> Part:
    pictures, values = arrays.get(f"{name}_images"), arrays.get(f"{name}_inputs")
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
    if pictures is not None:
        inputs = _pictures(path, name, pictures)
    elif found.dtype.kind == "f" and np.abs(found).max() < np.finfo(np.float32).max:
        inputs = torch.from_numpy(np.ascontiguousarray(found, np.float32))
    else:
        raise UserError(f"{path}: {name}_inputs is {found.dtype}, wanted finite floats")
    return Part(inputs, _targets(path, name, labels))


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
    if labels.dtype.kind in "iu" and labels.ndim == 1 and labels.min() >= 0:
        if labels.max() > 2**31:
            raise UserError(f"{path}: {name}_labels has {labels.max()}; no number of a class")
        return torch.from_numpy(labels.astype(np.int64))
    raise UserError(f"{path}: {name}_labels is {labels.dtype}, wanted classes from 0, or floats")

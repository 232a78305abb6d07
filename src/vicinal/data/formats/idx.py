"""IDX files: MNIST, Fashion-MNIST and EMNIST."""

import functools
import math
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from zlib_ng import gzip_ng

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import DataSet, LoadOptions, Note
from vicinal.data.formats.bounded_read import check_claim, read_rest
from vicinal.data.formats.labels import split_with_known_labels
from vicinal.data.source_spec import existing
from vicinal.errors import UserError
from vicinal.options import check_options

_CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "fashion-mnist": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ],
}
_UBYTES = b"\0\0\x08"


def _load(name: str, where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load a data set from its four IDX files, compressed by gzip or not.

    Without a path they are looked for under the root's folder of the name of the data set. Images
    are ``(n, 1, 28, 28)`` uint8: 60,000 training and 10,000 test examples.

    Raises:
        UserError: if a file is missing, damaged, or of a different size than its header says.
    """
    check_options(name, options, ())
    folder = _folder(name, where, load_options)
    classes = dict(enumerate(_CLASSES[name]))
    return _data_set(folder, name, ("train", "t10k"), classes, load_options)


load_mnist = functools.partial(_load, "mnist")  # LeCun et al., 1998
load_fashion_mnist = functools.partial(_load, "fashion-mnist")  # Xiao et al., arXiv 1708.07747


def load_emnist(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load EMNIST (Cohen et al., arXiv 1702.05373) from the IDX files of one of its splits.

    The files are ``emnist-SPLIT-train-images-idx3-ubyte`` and so on, compressed by gzip or not, and
    ``emnist-SPLIT-mapping.txt``, which names the classes. Without a path they are looked for under
    the root's folder ``emnist``. EMNIST stores images transposed; they are turned upright.

    Options: ``split=NAME``, such as ``balanced`` or ``letters``, if there are several.

    Raises:
        UserError: if a file is missing, damaged, or of a different size than its header says; if
            there are several splits and none is named.
    """
    check_options("emnist", options, ("split",))
    folder = _folder("emnist", where, load_options)
    found = sorted({path.name.split("-")[1] for path in folder.glob("emnist-*-train-images*")})
    if "split" not in options and len(found) != 1:
        got, advice = "none", "Extract them there, or name another folder as emnist:PATH"
        if found:
            got = f"those of {' and '.join(found)}"
            advice = "Choose one of these splits with ?split=NAME"
        raise UserError(
            f"{folder}: expected files of one split of EMNIST, such as "
            f"emnist-balanced-train-images-idx3-ubyte.gz, got {got}. {advice}."
        )
    chosen = options.get("split", *found[:1])
    stem = f"emnist-{chosen}"
    notes = (
        Note(f"split {chosen} of EMNIST, of {', '.join(found)} in {folder}"),
        Note("images are stored transposed in EMNIST's files and were turned upright"),
    )
    classes = _mapping(folder / f"{stem}-mapping.txt")
    stems = f"{stem}-train", f"{stem}-test"
    data = _data_set(folder, "emnist", stems, classes, load_options)
    return replace(data, notes=notes)


def _folder(name: str, where: str, load_options: LoadOptions) -> Path:
    if where:
        return existing(where, load_options.root, what=f"folder of {name}")
    # Never the root itself, since MNIST and Fashion-MNIST have the same file names.
    return load_options.root / name


def _mapping(path: Path) -> dict[int, str]:
    """Return the characters of each label; {} if there is no such file."""
    try:
        lines = path.read_text("utf-8").splitlines()
        rows = [[int(word) for word in line.split()] for line in lines]
        if not all(len(row) > 1 and 0 <= row[0] < 256 for row in rows if row):
            raise ValueError("a number is missing or out of range")
        return {row[0]: "".join(map(chr, row[1:])) for row in rows if row}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path}: expected lines with a label from 0 to 255 and codes of characters, such as "
            f"'10 65', got a line in another format ({error}). Download it again."
        ) from error


def _data_set(
    folder: Path,
    name: str,
    stems: tuple[str, str],
    classes: dict[int, str],
    load_options: LoadOptions,
) -> DataSet:
    """Read the files of both splits; ``classes`` has the name of each label, if they have names."""
    splits = []
    for stem in stems:
        paths = [_find(folder, f"{stem}-{k}-ubyte", name) for k in ("images-idx3", "labels-idx1")]
        images, labels = (read_idx(path, max_bytes=load_options.max_bytes) for path in paths)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"{paths[0]}, {paths[1]}: expected shapes (n, height, width) and (n,), got "
                f"{images.shape} and {labels.shape}."
            )
        if name == "emnist":
            images = np.ascontiguousarray(images.transpose(0, 2, 1))
        classes = classes or {int(label): str(label) for label in np.unique(labels)}
        splits.append(
            split_with_known_labels(
                torch.from_numpy(images)[:, None],
                labels,
                list(classes),
                functools.partial(_place, paths[1]),
                load_options.skip_bad,
            )
        )
    train, test = splits
    first, other = (tuple(split.inputs.shape[2:]) for split in splits)
    if first != other:
        raise UserError(f"{folder}: expected images of one size, got {first} and {other}.")
    return DataSet(tuple(classes.values()), train, test, brightest=255)


def _place(path: Path, row: int) -> str:
    return f"{path}, row {row} at byte {8 + row}"


def _find(folder: Path, file: str, name: str) -> Path:
    # The authors use both names; on Kaggle each file is in a folder of the same name.
    names = (file, file.replace("-idx", ".idx"))
    for base in (folder, *(folder / word for word in names)):
        for word in names:
            for path in (base / word, base / f"{word}.gz"):
                if path.is_file():
                    return path
    advice = f"Download it with `vicinal data fetch {name}`, or"
    if name == "emnist":  # its authors offer one large archive
        advice = "Extract it there, choose another split with ?split=NAME, or"
    raise UserError(
        f"{name} is not in {folder}: expected {file} or {file}.gz. {advice} name another folder as "
        f"{name}:PATH."
    )


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed by gzip if its name ends in ``.gz``.

    Returns:
        uint8 of the shape in the header.

    Raises:
        UserError: if it cannot be read, is damaged or incomplete, has a different type of values,
            or takes more than ``max_bytes``.
    """
    try:
        with gzip_ng.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            kind, dimensions = struct.unpack(">3sB", file.read(4))
            if kind != _UBYTES or not 1 <= dimensions <= 4:
                begin = f"0x{kind.hex()}{dimensions:02x}"
                raise ValueError(
                    f"expected a file of unsigned bytes in IDX format, which begins with "
                    f"0x00000801 to 0x00000804, got one that begins with {begin}"
                )
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            check_claim(path, math.prod(shape), path.stat().st_size, max_bytes)
            return read_rest(file, math.prod(shape)).reshape(shape)
    except UserError:
        raise
    except Exception as error:  # the header is too short, or the decompressor fails
        raise UserError(f"{path}: damaged or incomplete ({error}). Download it again.") from error

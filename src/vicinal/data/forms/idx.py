"""IDX files: MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., arXiv 1708.07747)."""

import math
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from vicinal.data.dataset import DataSet, Part, Wanted
from vicinal.data.words import check_options, existing
from vicinal.errors import UserError

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_DIGITS = tuple(str(k) for k in range(10))
_UBYTE = 8
_DEFLATE_AT_MOST = 1032  # bytes that one compressed byte can stand for


def load_mnist(where: str, options: Mapping[str, str], wanted: Wanted) -> DataSet:
    """Load MNIST from its four IDX files, compressed by gzip or not.

    Without a path they are looked for under the root and its folder ``mnist``. Pictures are
    ``(n, 1, 28, 28)`` uint8: 60,000 to train on, 10,000 to test on.

    Raises:
        UserError: if a file is not there, damaged, or of another size than its header says.
    """
    return _load("mnist", _DIGITS, where, options, wanted)


def load_fashion_mnist(where: str, options: Mapping[str, str], wanted: Wanted) -> DataSet:
    """Load Fashion-MNIST, whose files have the names and the form of MNIST's."""
    return _load("fashion-mnist", _FASHION, where, options, wanted)


def _load(
    name: str,
    classes: tuple[str, ...],
    where: str,
    options: Mapping[str, str],
    wanted: Wanted,
) -> DataSet:
    check_options(name, options, ())
    # MNIST lies in the root itself only if it is named, since both sets have files of one name.
    folder = existing(where, wanted.root, what=f"folder of {name}") if where else wanted.root / name
    parts = []
    for pictures_name, labels_name in _FILES.values():
        pictures_path = _found(folder, pictures_name, name)
        labels_path = _found(folder, labels_name, name)
        pictures, labels = read_idx(pictures_path), read_idx(labels_path)
        if pictures.ndim != 3 or labels.ndim != 1 or len(pictures) != len(labels):
            raise UserError(
                f"{pictures_path} has shape {pictures.shape}, {labels_path} has {labels.shape}: "
                "wanted (n, height, width) and (n,)"
            )
        if len(wrong := np.flatnonzero(labels >= len(classes))):
            row = int(wrong[0])
            raise UserError(
                f"{labels_path}, row {row} at byte {8 + row}: label {labels[row]}, "
                f"where there are {len(classes)} classes"
            )
        targets = torch.from_numpy(labels.astype(np.int64))
        parts.append(Part(torch.from_numpy(pictures)[:, None], targets))
    if parts[0].inputs.shape[1:] != parts[1].inputs.shape[1:]:
        raise UserError(f"{folder}: training and test pictures differ in size")
    train, test = parts
    return DataSet(classes, train, test, brightest=255)


def _found(folder: Path, file: str, name: str) -> Path:
    # The authors wrote both forms of the name.
    for word in (file, file.replace("-idx", ".idx")):
        for path in (folder / word, folder / f"{word}.gz"):
            if path.exists():
                return path
    raise UserError(
        f"{name} is not in {folder}: wanted {file} or {file}.gz; `vicinal data fetch {name}` "
        f"downloads it, and {name}:PATH names another folder"
    )


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed by gzip if its name ends in ``.gz``.

    Returns:
        uint8 of the shape that the header says; what follows in the file has to fit exactly.

    Raises:
        UserError: if it cannot be read, is damaged, or of another kind.
    """
    from zlib_ng import gzip_ng

    packed = path.suffix == ".gz"
    try:
        size = path.stat().st_size
        with gzip_ng.open(path) if packed else path.open("rb") as file:
            zeros, kind, dimensions = struct.unpack(">HBB", _exactly(file.read(4), 4))
            if zeros or kind != _UBYTE or not 1 <= dimensions <= 4:
                raise UserError(
                    f"{path}: wanted an IDX file of unsigned bytes, found one that begins "
                    f"0x{zeros:04x}{kind:02x}{dimensions:02x}"
                )
            header = _exactly(file.read(4 * dimensions), 4 * dimensions)
            shape = struct.unpack(f">{dimensions}I", header)
            count = math.prod(shape)
            most = size * _DEFLATE_AT_MOST if packed else size - 4 - 4 * dimensions
            if count > most or not count:
                raise UserError(
                    f"{path}: its header says {'x'.join(map(str, shape))} bytes, which a file of "
                    f"{size} bytes cannot hold; it is damaged or incomplete"
                )
            values = bytearray(_exactly(file.read(count), count))
            if file.read(1):
                raise UserError(f"{path}: more follows behind the {count} bytes of its header")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # an end too early, or what the decompressor raises
        raise UserError(f"{path}: damaged or incomplete ({error}); fetch it again") from error
    return np.frombuffer(values, np.uint8).reshape(shape)


def _exactly(data: bytes, count: int) -> bytes:
    if len(data) < count:
        raise EOFError(f"wanted {count} bytes more, found {len(data)}")
    return data

"""IDX files: MNIST (LeCun et al., 1998), Fashion-MNIST (Xiao et al., arXiv 1708.07747)."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.formats.labels import fitting
from vicinal.data.source_spec import check_options, existing
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
_PIECE = 1 << 22
_DEFLATE_AT_MOST = 1032  # bytes that one compressed byte can stand for


def load_mnist(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load MNIST from its four IDX files, compressed by gzip or not.

    Without a path they are looked for under the root and its folder ``mnist``. Pictures are
    ``(n, 1, 28, 28)`` uint8: 60,000 to train on, 10,000 to test on.

    Raises:
        UserError: if a file is not there, damaged, or of another size than its header says.
    """
    return _load("mnist", _DIGITS, where, options, wanted)


def load_fashion_mnist(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load Fashion-MNIST, whose files have the names and the form of MNIST's."""
    return _load("fashion-mnist", _FASHION, where, options, wanted)


def _load(
    name: str,
    classes: tuple[str, ...],
    where: str,
    options: Mapping[str, str],
    wanted: LoadOptions,
) -> DataSet:
    check_options(name, options, ())
    # MNIST lies in the root itself only if it is named, since both sets have files of one name.
    folder = existing(where, wanted.root, what=f"folder of {name}") if where else wanted.root / name
    parts = []
    for files in _FILES.values():
        paths = [_found(folder, file, name) for file in files]
        pictures, labels = _pair(paths, wanted)

        def say(row: int, path: Path = paths[1], labels: np.ndarray = labels) -> str:
            return (
                f"{path}, row {row} at byte {8 + row}: label {labels[row]}, "
                f"where there are {len(classes)} classes"
            )

        targets = torch.from_numpy(labels.astype(np.int64))
        inputs = torch.from_numpy(pictures)[:, None]
        parts.append(fitting(inputs, targets, len(classes), say, wanted))
    return _data_set(folder, classes, parts)


def load_emnist(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load EMNIST (Cohen et al., arXiv 1702.05373) from the IDX files of one of its splits.

    The files are ``emnist-SPLIT-train-images-idx3-ubyte`` and so on, compressed by gzip or not, and
    ``emnist-SPLIT-mapping.txt``, which names the classes. Without a path they are looked for under
    the root's folder ``emnist``. Images are stored transposed and turned upright here.

    Options: ``split=NAME``, such as ``balanced`` or ``letters``, where several are there.

    Raises:
        UserError: if a file is not there, damaged, or of another size than its header says; if
            there are several splits and none is named.
    """
    check_options("emnist", options, ("split",))
    folder = existing(where, wanted.root, what="folder of emnist") if where else None
    folder = folder or wanted.root / "emnist"
    there = sorted({path.name.split("-")[1] for path in folder.glob("emnist-*-train-images*")})
    if "split" not in options and len(there) != 1:
        raise UserError(
            f"{folder} has {'the splits ' + ', '.join(there) if there else 'no split'} of EMNIST; "
            "expected files such as emnist-balanced-train-images-idx3-ubyte.gz, and split=NAME "
            "in the data's name where there are several"
        )
    chosen = options.get("split", there[0] if there else "")
    prefix = f"emnist-{chosen}-"
    loaded = []
    for part in ("train", "test"):
        paths = [
            _found(folder, f"{prefix}{part}-{kind}-ubyte", "emnist")
            for kind in ("images-idx3", "labels-idx1")
        ]
        loaded.append((paths[1], *_pair(paths, wanted)))
    names = _mapping(folder / f"{prefix}mapping.txt")
    names = names or {int(label): str(label) for label in np.unique(loaded[0][2])}
    places = np.full(256, -1)
    places[list(names)] = np.arange(len(names))
    parts = []
    for path, pictures, labels in loaded:

        def say(row: int, path: Path = path, labels: np.ndarray = labels) -> str:
            return f"{path}, row {row} at byte {8 + row}: label {labels[row]} is no class"

        upright = torch.from_numpy(pictures).transpose(1, 2).contiguous()[:, None]
        parts.append(fitting(upright, torch.from_numpy(places[labels]), len(names), say, wanted))
    notes = [
        Note(f"split {chosen} of EMNIST, of {', '.join(there)} in {folder}"),
        Note("images are stored transposed in EMNIST's files and were turned upright"),
    ]
    return _data_set(folder, tuple(names.values()), parts, notes)


def _mapping(path: Path) -> dict[int, str]:
    """Return the characters of each label, which a line lists by their codes; {} for no file."""
    try:
        rows = [
            [int(word) for word in line.split()] for line in path.read_text("utf-8").splitlines()
        ]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a label and codes of characters a line ({error})") from (
            error
        )
    if not all(len(row) > 1 and 0 <= row[0] < 256 and max(row) < 0x110000 for row in rows if row):
        raise UserError(f"{path}: expected a label from 0 to 255 and codes of characters a line")
    return {row[0]: "".join(map(chr, row[1:])) for row in rows if row}


def _pair(paths: Sequence[Path], wanted: LoadOptions) -> tuple[np.ndarray, np.ndarray]:
    pictures_path, labels_path = paths
    pictures, labels = (read_idx(path, max_bytes=wanted.max_bytes) for path in paths)
    if pictures.ndim != 3 or labels.ndim != 1 or len(pictures) != len(labels):
        raise UserError(
            f"{pictures_path} has shape {pictures.shape}, {labels_path} has {labels.shape}: "
            "wanted (n, height, width) and (n,)"
        )
    return pictures, labels


def _data_set(
    folder: Path, classes: tuple[str, ...], parts: Sequence[Split], notes: Sequence[Note] = ()
) -> DataSet:
    train, test = parts
    if train.inputs.shape[1:] != test.inputs.shape[1:]:
        raise UserError(f"{folder}: training and test pictures differ in size")
    return DataSet(classes, train, test, brightest=255, notes=tuple(notes))


def _found(folder: Path, file: str, name: str) -> Path:
    # The authors wrote both forms of the name; Kaggle has a folder of the same name around each.
    words = (file, file.replace("-idx", ".idx"))
    for base in (folder, *(folder / word for word in words)):
        for word in words:
            for path in (base / word, base / f"{word}.gz"):
                if path.is_file():
                    return path
    raise UserError(
        f"{name} is not in {folder}: wanted {file} or {file}.gz; `vicinal data fetch {name}` "
        f"downloads it, and {name}:PATH names another folder"
    )


def read_idx(path: Path, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed by gzip if its name ends in ``.gz``.

    Returns:
        uint8 of the shape that the header says; what follows in the file has to fit exactly.

    Raises:
        UserError: if it cannot be read, is damaged, of another kind, or takes more than
            ``max_bytes``.
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
            if count > max_bytes:
                raise UserError(
                    f"{path}: {'x'.join(map(str, shape))} values take {count} bytes, more than "
                    f"max_bytes = {max_bytes}; raise max_bytes if the file is genuine"
                )
            # Memory is taken for what is there rather than for what is claimed.
            values = np.empty(count, np.uint8)
            for at in range(0, count, _PIECE):
                piece = values[at : at + _PIECE]
                piece[:] = np.frombuffer(_exactly(file.read(len(piece)), len(piece)), np.uint8)
            if file.read(1):
                raise UserError(f"{path}: more follows behind the {count} bytes of its header")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # an end too early, or what the decompressor raises
        raise UserError(f"{path}: damaged or incomplete ({error}); fetch it again") from error
    return values.reshape(shape)


def _exactly(data: bytes, count: int) -> bytes:
    if len(data) < count:
        raise EOFError(f"wanted {count} bytes more, found {len(data)}")
    return data

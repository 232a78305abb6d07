"""CIFAR-10 and CIFAR-100 in the files of their authors (Krizhevsky, 2009)."""

import functools
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from zlib_ng import gzip_ng

from vicinal.data.dataset import DataSet, LoadOptions
from vicinal.data.formats.bounded_read import check_claim
from vicinal.data.formats.labels import split_with_known_labels
from vicinal.data.formats.restricted_pickle import loads
from vicinal.data.source_spec import existing
from vicinal.errors import UserError
from vicinal.options import check_options


class _Archive(NamedTuple):
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: bytes
    labels: bytes


_ARCHIVES = {
    "cifar10": _Archive(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        b"label_names",
        b"labels",
    ),
    "cifar100": _Archive(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        "test",
        "meta",
        b"fine_label_names",
        b"fine_labels",
    ),
}


def _load(name: str, where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load a data set from its Python archive or the folder that it unpacks to.

    Without a path, both are looked for under the root. Images are ``(n, 3, 32, 32)`` uint8 in the
    order of the files: 50,000 training and 10,000 test examples.

    Raises:
        UserError: if the files are missing, damaged, larger than ``max_bytes`` or not CIFAR's.
    """
    check_options(name, options, ())
    known = _ARCHIVES[name]
    path = _find(name, known, where, load_options.root)
    read = _read_folder if path.is_dir() else _read_archive
    values = {
        member: _unpickle(data, f"{path}, {member}")
        for member, data in read(path, known, load_options.max_bytes)
    }
    classes = values[known.meta].get(known.names)
    if not isinstance(classes, list) or not all(isinstance(c, bytes) for c in classes):
        raise _not_cifar(f"{path}, {known.meta}", f"a list of {known.names.decode()}", classes)
    splits = []
    for members in (known.train, (known.test,)):
        pixels, labels, places = [], [], []
        for member in members:
            place = f"{path}, {member}"
            images, numbers = _batch(values.pop(member), place, known.labels)
            pixels.append(images)
            labels += numbers
            places += [f"{place}, row {row}" for row in range(len(numbers))]
        splits.append(
            split_with_known_labels(
                torch.from_numpy(np.concatenate(pixels)),
                np.array(labels),
                range(len(classes)),
                places.__getitem__,
                load_options.skip_bad,
            )
        )
    names = tuple(word.decode("utf-8", "replace") for word in classes)
    train, test = splits
    return DataSet(names, train, test, brightest=255)


load_cifar10 = functools.partial(_load, "cifar10")
load_cifar100 = functools.partial(_load, "cifar100")  # with its 100 fine labels


def _find(name: str, known: _Archive, where: str, root: Path) -> Path:
    if where:
        path = existing(where, root, what=f"folder or archive of {name}")
        inside = (path / word for word in (known.folder, known.archive))
        return next((one for one in inside if one.exists()), path)
    for base in (root, root / name):
        for word in (known.folder, known.archive):
            if (base / word).exists():
                return base / word
    raise UserError(
        f"{name} is not under {root}: expected {known.folder}/ or {known.archive}. Download it "
        f"with `vicinal data fetch {name}`, or name another place as {name}:PATH."
    )


def _read_folder(path: Path, known: _Archive, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    for member in (known.meta, *known.train, known.test):
        try:
            size = (path / member).stat().st_size
            check_claim(path / member, size, size, max_bytes)
            yield member, (path / member).read_bytes()
        except OSError as error:
            raise UserError(
                f"{path / member} cannot be read: {error.strerror}. Check the path and permissions."
            ) from error


def _read_archive(path: Path, known: _Archive, max_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Read the members of the archive without unpacking it to the disk."""
    missing = {f"{known.folder}/{m}": m for m in (known.meta, *known.train, known.test)}
    try:
        stored = path.stat().st_size
        with path.open("rb") as start:
            opener: Any = gzip_ng.open if start.read(2) == b"\x1f\x8b" else open
        with opener(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                member = missing.pop(entry.name.removeprefix("./"), None)
                if member is not None and entry.isreg():
                    check_claim(f"{path}, {entry.name}", entry.size, stored, max_bytes)
                    content: Any = archive.extractfile(entry)
                    yield member, content.read()
            while file.read(1 << 20):  # up to the end, where gzip's checksum is
                pass
    except UserError:
        raise
    except Exception as error:  # tarfile and zlib raise errors of every kind
        raise UserError(f"{path}: the archive is damaged ({error}). Download it again.") from error
    if missing:
        raise UserError(f"{path}: {next(iter(missing))} is not in the archive. Download it again.")


def _unpickle(data: bytes, where: str) -> dict[Any, Any]:
    value = loads(data, origin=where)
    if not isinstance(value, dict):
        raise _not_cifar(where, "a dictionary", value)
    return value


def _batch(batch: Mapping[Any, Any], where: str, key: bytes) -> tuple[np.ndarray, list[int]]:
    pixels, labels = batch.get(b"data"), batch.get(key)
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.shape[1:] != (3 * 32 * 32,)
    ):
        raise _not_cifar(where, "pixels (n, 3072) uint8", pixels)
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and abs(label) < 1 << 31 for label in labels)
    ):
        raise _not_cifar(where, f"a list of {len(pixels)} integer labels", labels)
    return np.asarray(pixels).reshape(-1, 3, 32, 32), labels


def _not_cifar(where: str, expected: str, got: Any) -> UserError:
    kind = f"{type(got).__name__} {getattr(got, 'shape', '')}".rstrip()
    return UserError(
        f"{where}: expected {expected}, as in CIFAR's files, got {kind}. Download the files again."
    )

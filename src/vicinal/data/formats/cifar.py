"""CIFAR-10 and CIFAR-100 in the files of their authors (Krizhevsky, 2009)."""

import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions
from vicinal.data.formats.labels import split_with_known_labels
from vicinal.data.formats.restricted_pickle import loads
from vicinal.data.source_spec import check_options, existing
from vicinal.errors import UserError

_VALUES = 3 * 32 * 32
_LARGEST = 400_000_000  # bytes of a member; the largest of CIFAR has 154 million


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


def load_cifar10(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load CIFAR-10 from its Python archive or the folder that it unpacks to.

    Without a path, both are looked for under the root. Images are ``(n, 3, 32, 32)`` uint8 in the
    order of the files: 50,000 training and 10,000 test examples.

    Raises:
        UserError: if the files are missing, damaged, larger than ``max_bytes`` or not CIFAR's.
    """
    return _load("cifar10", where, options, load_options)


def load_cifar100(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load CIFAR-100 with its 100 fine labels; otherwise like ``load_cifar10``."""
    return _load("cifar100", where, options, load_options)


def _load(name: str, where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    check_options(name, options, ())
    known = _ARCHIVES[name]
    path = _find(name, known, where, load_options.root)
    read = _read_folder if path.is_dir() else _read_archive
    files = read(path, known, min(_LARGEST, load_options.max_bytes))
    with ThreadPoolExecutor(1) as other:  # unpickles one file while the next is decompressed
        pending = {member: other.submit(_unpickle, data, path, member) for member, data in files}
        values = {member: each.result() for member, each in pending.items()}
    classes = values[known.meta].get(known.names)
    if not isinstance(classes, list) or not all(isinstance(c, bytes) for c in classes):
        raise _not_cifar(path, known.meta, f"a list of {known.names.decode()}", "none")
    names = tuple(word.decode("utf-8", "replace") for word in classes)
    splits = []
    for members in (known.train, (known.test,)):
        batches = [_batch(values.pop(member), path, member, known) for member in members]
        rows = [
            (member, row)
            for member, (_, labels) in zip(members, batches, strict=True)
            for row in range(len(labels))
        ]
        splits.append(
            split_with_known_labels(
                torch.cat([images for images, _ in batches]),
                torch.cat([labels for _, labels in batches]),
                len(names),
                lambda row, rows=rows: f"{path}, {rows[row][0]}, row {rows[row][1]}",
                load_options,
            )
        )
    train, test = splits
    return DataSet(names, train, test, brightest=255)


def _find(name: str, known: _Archive, where: str, root: Path) -> Path:
    if where:
        path = existing(where, root, what=f"folder or archive of {name}")
        inside = path / known.folder
        return inside if inside.is_dir() else path
    for base in (root, root / name):
        for word in (known.folder, known.archive):
            if (base / word).exists():
                return base / word
    raise UserError(
        f"{name} is not under {root}: expected {known.folder}/ or {known.archive}. Download it "
        f"with `vicinal data fetch {name}`, or name another place as {name}:PATH"
    )


def _read_folder(path: Path, known: _Archive, most: int) -> Iterator[tuple[str, bytes]]:
    for member in (known.meta, *known.train, known.test):
        try:
            size = (path / member).stat().st_size
            if size > most:
                raise _too_large(path / member, size, most)
            yield member, (path / member).read_bytes()
        except OSError as error:
            raise UserError(f"{path / member} cannot be read: {error.strerror}") from error


def _read_archive(path: Path, known: _Archive, most: int) -> Iterator[tuple[str, bytes]]:
    """Read the members of the archive; nothing is unpacked to the disk."""
    missing = {f"{known.folder}/{m}": m for m in (known.meta, *known.train, known.test)}
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                member = missing.pop(entry.name.removeprefix("./"), None)
                if member is None or not entry.isreg():
                    continue
                if entry.size > most:
                    raise _too_large(f"{path}, {entry.name}", entry.size, most)
                content = archive.extractfile(entry)
                assert content is not None
                yield member, content.read()
            while file.read(1 << 20):  # up to the end, where gzip's checksum is
                pass
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:  # tarfile and zlib raise errors of every kind
        raise UserError(f"{path}: the archive is damaged ({error}); download it again") from error
    if missing:
        raise UserError(f"{path}: {next(iter(missing))} is not in the archive; download it again")


def _open(path: Path) -> BinaryIO:
    from zlib_ng import gzip_ng

    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip_ng.open(path) if packed else path.open("rb"))


def _unpickle(data: bytes, path: Path, member: str) -> dict[Any, Any]:
    value = loads(data, origin=f"{path}, {member}")
    if not isinstance(value, dict):
        raise _not_cifar(path, member, "a dictionary", f"a {type(value).__name__}")
    return value


def _batch(
    batch: Mapping[Any, Any], path: Path, member: str, known: _Archive
) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = batch.get(b"data"), batch.get(known.labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise _not_cifar(path, member, f"pixels (n, {_VALUES}) uint8", "none")
    if pixels.shape[1] != _VALUES:
        raise _not_cifar(path, member, f"{_VALUES} pixels per image", str(pixels.shape[1]))
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and abs(label) < 1 << 31 for label in labels)
    ):
        raise _not_cifar(path, member, f"a list of {len(pixels)} integer labels", "another value")
    inputs = torch.from_numpy(np.asarray(pixels).reshape(-1, 3, 32, 32))
    return inputs, torch.tensor(labels, dtype=torch.int64)


def _too_large(where: object, size: int, most: int) -> UserError:
    return UserError(
        f"{where}: expected at most {most} bytes (max_bytes, or the size of CIFAR), got {size}"
    )


def _not_cifar(path: Path, member: str, expected: str, got: str) -> UserError:
    return UserError(f"{path}, {member}: expected {expected}, as in CIFAR's files, got {got}")

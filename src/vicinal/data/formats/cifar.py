"""CIFAR-10 and CIFAR-100 in the files that their authors hand out (Krizhevsky, 2009)."""

import tarfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions
from vicinal.data.formats.labels import fitting
from vicinal.data.formats.safe_pickle import loads
from vicinal.data.source_spec import check_options, existing
from vicinal.errors import UserError

_VALUES = 3 * 32 * 32
_LARGEST = 400_000_000  # bytes of a file within the archive; the largest there is has 154 million


class _Form(NamedTuple):
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: bytes
    labels: bytes


_FORMS = {
    "cifar10": _Form(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{k}" for k in range(1, 6)),
        "test_batch",
        "batches.meta",
        b"label_names",
        b"labels",
    ),
    "cifar100": _Form(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        "test",
        "meta",
        b"fine_label_names",
        b"fine_labels",
    ),
}


def load_cifar10(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load CIFAR-10 from its Python archive, or the folder that this unpacks to.

    Without a path it is looked for under the root. Pictures are ``(n, 3, 32, 32)`` uint8 in the
    order of the files: 50,000 to train on, 10,000 to test on.

    Raises:
        UserError: if it is not there, damaged, or holds what is not CIFAR.
    """
    return _load("cifar10", where, options, wanted)


def load_cifar100(where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    """Load CIFAR-100 with its 100 fine labels; all else as for CIFAR-10."""
    return _load("cifar100", where, options, wanted)


def _load(name: str, where: str, options: Mapping[str, str], wanted: LoadOptions) -> DataSet:
    check_options(name, options, ())
    form = _FORMS[name]
    path = _found(name, form, where, wanted.root)
    members = (form.meta, *form.train, form.test)
    most = min(_LARGEST, wanted.max_bytes)
    files = (
        _read_folder(path, members)
        if path.is_dir()
        else _read_archive(path, form, members, most=most)
    )
    with ThreadPoolExecutor(1) as other:  # unpickles one file while the next is decompressed
        waiting = {name: other.submit(_pickled, data, path, name) for name, data in files}
        values = {name: each.result() for name, each in waiting.items()}
    classes = values[form.meta].get(form.names)
    if not isinstance(classes, list) or not all(isinstance(c, bytes) for c in classes):
        raise _foreign(path, form.meta, f"no list of {form.names.decode()}")
    names = tuple(word.decode("utf-8", "replace") for word in classes)
    parts = []
    for group in (form.train, (form.test,)):
        batches = [_batch(values.pop(member), path, member, form) for member in group]
        owners = [member for member, (_, t) in zip(group, batches, strict=True) for _ in t]
        firsts = {member: owners.index(member) for member in set(owners)}
        targets = torch.cat([labels for _, labels in batches])

        def say(
            row: int,
            owners: list[str] = owners,
            firsts: Mapping[str, int] = firsts,
            targets: torch.Tensor = targets,
        ) -> str:
            label, owner = int(targets[row]), owners[row]
            found = f"label {label} at row {row - firsts[owner]}, for {len(names)} classes"
            return str(_foreign(path, owner, found))

        inputs = torch.cat([pictures for pictures, _ in batches])
        parts.append(fitting(inputs, targets, len(names), say, wanted))
    train, test = parts
    return DataSet(names, train, test, brightest=255)


def _found(name: str, form: _Form, where: str, root: Path) -> Path:
    if where:
        path = existing(where, root, what=f"folder or archive of {name}")
        inside = path / form.folder
        return inside if inside.is_dir() else path
    places = [base / word for base in (root, root / name) for word in (form.folder, form.archive)]
    for place in places:
        if place.exists():
            return place
    raise UserError(
        f"{name} is not under {root}: wanted {form.folder}/ or {form.archive}; "
        f"`vicinal data fetch {name}` downloads it, and {name}:PATH names another place"
    )


def _read_folder(path: Path, members: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for member in members:
        try:
            yield member, (path / member).read_bytes()
        except OSError as error:
            raise UserError(f"{path / member} cannot be read: {error.strerror}") from error


def _read_archive(
    path: Path, form: _Form, members: tuple[str, ...], *, most: int
) -> Iterator[tuple[str, bytes]]:
    """Read the files out of the archive; nothing is unpacked to the disk."""
    wanted = {f"{form.folder}/{member}": member for member in members}
    try:
        with _opened(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for entry in archive:
                member = wanted.pop(entry.name.removeprefix("./"), None)
                if member is None or not entry.isreg():
                    continue
                if entry.size > most:
                    raise UserError(
                        f"{path}: {entry.name} claims {entry.size} bytes, more than the {most} "
                        "of CIFAR or max_bytes"
                    )
                content = archive.extractfile(entry)
                assert content is not None
                yield member, content.read()
            while file.read(1 << 20):  # up to the end, where gzip's checksum is
                pass
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:  # tarfile and zlib raise what they like
        raise UserError(f"{path}: a damaged archive ({error}); fetch it again") from error
    if wanted:
        raise UserError(f"{path}: {next(iter(wanted))} is not in the archive")


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        return path.open("rb")
    from zlib_ng import gzip_ng

    return cast(BinaryIO, gzip_ng.open(path))


def _batch(
    batch: Mapping[Any, Any], path: Path, member: str, form: _Form
) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = batch.get(b"data"), batch.get(form.labels)
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 2):
        raise _foreign(path, member, "no table of uint8 pixels")
    if pixels.shape[1] != _VALUES:
        raise _foreign(path, member, f"pictures of {pixels.shape[1]} values, not {_VALUES}")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and abs(label) < 1 << 31 for label in labels)
    ):
        raise _foreign(path, member, f"no list of {len(pixels)} whole-numbered labels")
    inputs = torch.from_numpy(pixels.reshape(-1, 3, 32, 32))
    return inputs, torch.tensor(labels, dtype=torch.int64)


def _pickled(data: bytes, path: Path, member: str) -> dict[Any, Any]:
    value = loads(data, origin=f"{path}/{member}" if path.is_dir() else f"{path}, {member}")
    if not isinstance(value, dict):
        raise _foreign(path, member, f"a {type(value).__name__}, not a dictionary")
    return value


def _foreign(path: Path, member: str, found: str) -> UserError:
    return UserError(f"{path}, {member}: this is no file of CIFAR: it has {found}")

"""Pictures in folders, one a class: ImageNet's layout."""

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from vicinal.data.dataset import DataSet, Part, Wanted, split
from vicinal.data.forms.pictures import StoredPictures, picture_part
from vicinal.data.words import channels_option, check_options, existing, positive
from vicinal.errors import UserError

OPTIONS = ("size", "channels", "classes")

_LARGEST = 1 << 29  # bytes of a file

_TRAIN, _TEST, _VALIDATION = ("train", "training"), ("test", "testing"), ("val", "validation")


@dataclass(frozen=True, eq=False)
class PictureFiles:
    """Encoded pictures, a file each.

    Args:
        root: the folder that they are under.
        names: their paths from there.
    """

    root: Path
    names: np.ndarray

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.names)

    def get(self, row: int) -> bytes:
        """Return the bytes of a file."""
        try:
            path = self.root / str(self.names[row])
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
                raise UserError(f"{path} is no file")
            if status.st_size > _LARGEST:
                raise UserError(f"{path} has more than {_LARGEST} bytes; that is no picture")
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name(row)} cannot be read: {error.strerror}") from error

    def name(self, row: int) -> str:
        """Return the path of a file."""
        return str(self.root / self.names[row])

    def identity(self, row: int) -> str:
        """Return the path of a file below the root, and its size."""
        try:
            size = (self.root / self.names[row]).stat().st_size
        except OSError:
            size = -1
        return f"{self.names[row]} {size}"


def load_folder(where: str, options: Mapping[str, str], wanted: Wanted) -> DataSet:
    """Load ``folder:PATH``: a folder a class, any format that Pillow reads.

    Where PATH has folders ``train`` and ``test`` (or ``val``, as ImageNet), these are the parts;
    with all three, ``val`` is the validation part. Where it has classes right away, they are
    divided: ``test_fraction`` of each class are test examples. Classes are in the order of their
    names, and so are the files of a class; a name that begins with a dot is passed over.

    Options: ``size=N`` makes all pictures N x N (the shorter side resized, the middle cut out),
    else all have to be of one size; ``channels=1`` reads them grey; ``classes=A,B`` takes only
    these folders.

    Raises:
        UserError: if there is no class, a class without files, or one that the training part does
            not have; for a picture that cannot be read.
    """
    check_options("folder", options, OPTIONS)
    root = existing(where, wanted.root, what="folder of pictures")
    if not root.is_dir():
        raise UserError(f"{root} is a file; folder: wants a folder with one folder a class")
    named = {name.lower(): name for name in _folders(root)}
    parts = [
        next((root / named[word] for word in words if word in named), None)
        for words in (_TRAIN, _TEST, _VALIDATION)
    ]
    train, test, validation = parts
    size, channels = positive("size", options), channels_option(options)
    only = options["classes"].split(",") if "classes" in options else None
    if train is None:
        if test or validation:
            raise UserError(f"{root} has {(test or validation)} but no folder train beside it")
        classes = _classes(root, only)
        files, targets = _listed(root, classes)
        rows = split(targets, fraction=wanted.test_fraction, seed=wanted.seed, classes=classes)
        listed = [(PictureFiles(root, files[k]), targets[torch.from_numpy(k)]) for k in rows]
    else:
        if test is None:
            test, validation = validation, None
        if test is None:
            raise UserError(f"{root} has a folder train, but neither test nor val beside it")
        classes = _classes(train, only)
        folders = [train, test] if validation is None else [train, test, validation]
        listed = []
        for folder in folders:
            if more := sorted(set(_folders(folder)) - set(classes)) if only is None else []:
                raise UserError(f"{folder} has the class {more[0]}, which {train} has not")
            files, targets = _listed(folder, classes)
            listed.append((PictureFiles(folder, files), targets))
    first = StoredPictures.of(listed[0][0], size=size, channels=channels, on_bad=wanted.on_bad)
    loaded: list[Part] = []
    for pictures, targets in listed:
        stored = replace(first, files=pictures, shape=(len(pictures), *first.shape[1:]))
        loaded.append(picture_part(stored, targets, wanted))
    validation_part = loaded[2] if len(loaded) > 2 else None
    return DataSet(classes, loaded[0], loaded[1], validation_part, brightest=255)


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _classes(folder: Path, only: Sequence[str] | None) -> tuple[str, ...]:
    found = _folders(folder)
    if only is not None:
        for name in only:
            if name not in found:
                raise UserError(f"{folder} has no class {name} (it has: {', '.join(found[:20])})")
            if only.count(name) > 1:
                raise UserError(f"classes={','.join(only)}: {name} comes twice")
        found = list(only)
    if len(found) < 2:
        raise UserError(f"{folder} has {len(found)} folders; wanted one a class, two or more")
    return tuple(found)


def _listed(folder: Path, classes: Sequence[str]) -> tuple[np.ndarray, torch.Tensor]:
    """Return the files of all classes, as paths from the folder, and their classes."""
    names: list[str] = []
    counts = []
    for label in classes:
        before = len(names)
        try:
            for base, folders, files in os.walk(folder / label, onerror=_raise):
                folders.sort()
                inside = os.path.relpath(base, folder)
                names += [os.path.join(inside, name) for name in sorted(files) if name[0] != "."]
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
        counts.append(len(names) - before)
        if not counts[-1]:
            raise UserError(
                f"{folder / label} has no files: a class needs pictures; put some there, or leave "
                "the class out with classes=NAME,NAME in the data's name"
            )
    targets = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(counts))
    return np.array(names), targets


def _raise(error: OSError) -> None:
    raise error

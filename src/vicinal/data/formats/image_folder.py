"""Folders of images with one folder per class, as ImageNet has them: ``folder:PATH``."""

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, Note
from vicinal.data.formats.bounded_read import check_claim
from vicinal.data.formats.file_listing import (
    SPLIT_NAMES,
    file_identity,
    files_below,
    folders_in,
    litter_notes,
    loose_notes,
    other_kinds_notes,
    raise_unreadable,
    splits_by_name,
    without_other_kinds,
)
from vicinal.data.formats.image_data_set import LabeledFiles, image_data_set
from vicinal.data.formats.images import IMAGE_OPTIONS, image_options
from vicinal.data.source_spec import existing, separated_words
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible
from vicinal.options import check_options

_ONLY_SPELLING = "only in upper and lower case or in the Unicode form of accents"

_NOT_CLASSES = {"images", "image", "imgs", "img", "masks", "mask", "labels", "annotations"}

_LARGEST = 1 << 29  # bytes of a file


@dataclass(frozen=True, eq=False)
class FilesBelow:
    """Encoded images, one file each, by their paths below a folder."""

    root: Path
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def get(self, row: int) -> bytes:
        """Return the bytes of one image."""
        path = self.root / str(self.names[row])
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
                raise UserError(f"{path} is not a file.")
            check_claim(path, status.st_size, status.st_size, _LARGEST)
            return path.read_bytes()
        except OSError as error:
            raise_unreadable(error)

    def name(self, row: int) -> str:
        """Return its path."""
        return str(self.root / self.names[row])

    def fingerprint(self) -> str:
        """Return a hash of the paths, sizes and times of all files."""
        digest = hashlib.sha256(f"{self.root.resolve()}\n".encode("utf-8", "surrogateescape"))
        for name in self.names:
            try:
                found = (self.root / str(name)).stat()
                about = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
            except OSError:
                about = "unreadable"
            digest.update(f"{name}\n{about}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def identity(self, row: int) -> str:
        """Return its name and size."""
        return file_identity(self.root, str(self.names[row]))

    def rows(self, rows: np.ndarray) -> "FilesBelow":
        """Return some of the images."""
        return FilesBelow(self.root, self.names[rows])


def load_folder(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``folder:PATH``: one folder per class, images of any format that Pillow reads.

    If PATH has folders ``train`` and ``test`` (or ``val``, as in ImageNet), these are the splits;
    with all three, ``val`` is the validation split. ``training``, ``testing``, ``valid``,
    ``validation`` and ``dev`` are known too. If PATH has the classes themselves,
    ``test_fraction`` of each class become test examples. Classes are in the order of their names,
    and so are the files of a class. Folders within a class are read too, even through links; hidden
    files and files of operating systems (``Thumbs.db``) are skipped at every depth.

    Options:

    - ``size=N`` makes all images N x N (the shorter side resized, the middle cut out); without it
      all have to have one size.
    - ``channels=1`` reads them gray; the default is 3.
    - ``exif=ignore`` does not turn images by the orientation in their EXIF data.
    - ``alpha=black`` composes transparent images onto black instead of white, ``alpha=ignore``
      drops their transparency.
    - ``classes=A,B`` reads only these folders.
    - ``train=FOLDER``, ``test=FOLDER`` and ``validation=FOLDER`` name splits under PATH that have
      other names.

    Raises:
        UserError: if there is no class, a class without training examples, or a test class that is
            not in the training split; if the folders look like splits, or like images and masks,
            rather than classes; if an image cannot be read.
    """
    check_options("folder", options, (*IMAGE_OPTIONS, "classes", *SPLIT_NAMES))
    root = existing(where, load_options.root, what="folder of images")
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder with one folder per class, got a file.")
    only = separated_words(options["classes"]) if "classes" in options else None
    like_splits = {name for names in SPLIT_NAMES.values() for name in names}
    are_classes = (  # one of which is named like a split
        only is not None
        and any(name.lower() in like_splits for name in only)
        and {*only} <= {*map(visible, folders_in(root))}
        and not options.keys() & {*SPLIT_NAMES}
    )
    splits = {} if are_classes else _splits(root, options)
    folders = splits or {"train": root}
    train = folders["train"]
    classes = _classes(train, only)
    listed = {name: _list_files(folder, classes) for name, folder in folders.items()}
    for name, folder in folders.items():
        if more := sorted(set(folders_in(folder)) - set(classes)) if only is None else []:
            alike = [name for name in classes if _folded(name) == _folded(more[0])]
            hint = f" {alike[0]} differs from it {_ONLY_SPELLING}: rename one." if alike else ""
            raise UserError(f"{folder} has the class {more[0]}, which is not in {train}.{hint}")
        if not any(listed[name].files):
            raise UserError(f"{folder} has no files in the folders {', '.join(classes[:20])}.")
    explicit = only is not None or bool(splits)
    _check_layout(train, listed["train"], classes, explicit=explicit)
    files: dict[str, LabeledFiles] = {}
    for name, folder in folders.items():
        names = np.array([file for of_class in listed[name].files for file in of_class])
        counts = torch.tensor([len(of_class) for of_class in listed[name].files])
        targets = torch.arange(len(classes)).repeat_interleave(counts)
        files[name] = FilesBelow(folder, names), targets, ()
    notes = _layout_notes(root, splits, classes, listed)
    decoding = image_options(options, load_options.max_bytes)
    return image_data_set(tuple(map(visible, classes)), files, decoding, load_options, notes)


def _splits(root: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of the splits; {} if PATH has the classes themselves."""
    chosen = {name: root / options[name] for name in SPLIT_NAMES if name in options}
    chosen = {k: p if p.is_dir() else root / unquote(options[k]) for k, p in chosen.items()}
    for split, path in chosen.items():
        if not path.is_dir():
            raise UserError(unknown(f"folder in {root}", options[split], folders_in(root)))
    left = {name.lower(): root / name for name in folders_in(root)}
    found = splits_by_name({k: p for k, p in left.items() if p not in chosen.values()} | chosen)
    if len({path.resolve() for path in found.values()}) < len(found):
        got = ", ".join(f"{split}={path.name}" for split, path in found.items())
        raise UserError(
            f"{root}: expected different folders for train, test and validation, got {got}. Name "
            "another folder."
        )
    if "validation" in chosen and "validation" not in found:
        raise UserError(
            f"{root}: expected a test split next to validation={options['validation']}, got none. "
            "test=FOLDER names it."
        )
    if found and (missing := [name for name in ("train", "test") if name not in found]):
        there = ", ".join(path.name for path in found.values())
        raise UserError(
            f"{root}: expected folders train and test (or val), got {there}. To use a folder of "
            f"another name, pass {missing[0]}=FOLDER. If {there} is a class, list all classes "
            "in the source: classes=A,B."
        )
    return found


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _classes(folder: Path, only: Sequence[str] | None) -> tuple[str, ...]:
    found = folders_in(folder)
    if only is not None:
        shown = [visible(name) for name in found]
        for name in only:
            if name not in shown:
                raise UserError(f"{folder} has no class {name} (it has: {', '.join(shown[:20])}).")
            if only.count(name) > 1:
                raise UserError(f"classes={','.join(only)}: {name} is repeated.")
        return tuple(found[shown.index(name)] for name in only)
    if len(found) < 2:
        raise UserError(
            f"{folder}: expected two or more folders, one per class, got "
            f"{f'one, {found[0]}' if found else 'none'}. Put the images of each class into a "
            "folder with the name of the class."
        )
    return tuple(found)


class _FileList(NamedTuple):
    files: list[list[str]]  # of each class: the paths of its files from the folder of the split
    inside: list[list[str]]  # of each class: names of folders in it that have files
    skipped: Counter[str]  # hidden and system files and folders, by name
    others: list[str]  # files that are no images by their extension

    def has_own(self, k: int) -> bool:
        """Return whether a class has files directly in its folder."""
        return any(name.count(os.sep) == 1 for name in self.files[k])


def _list_files(folder: Path, classes: Sequence[str]) -> _FileList:
    skipped: Counter[str] = Counter()
    found = [files_below(folder, label, skipped) for label in classes]
    files, others = without_other_kinds(found, "image")
    inside = [
        sorted({name.split(os.sep)[1] for name in names if name.count(os.sep) > 1})
        for names in files
    ]
    return _FileList(files, inside, skipped, others)


def _check_layout(
    folder: Path, listed: _FileList, classes: Sequence[str], *, explicit: bool
) -> None:
    """Raise if the folders of the training split are not classes, unless options name them."""
    if not explicit:
        shown = ",".join(classes) if len(classes) <= 5 else "NAME,NAME,... (all of them)"
        chosen = f"To read them as classes all the same, pass classes={shown}"
        if {name.lower() for name in classes} <= _NOT_CLASSES:
            raise UserError(
                f"{folder} has the folders {', '.join(classes)}, which look like images and their "
                f"masks or labels, not like classes. {chosen}."
            )
        if any(listed.inside) and not any(map(listed.has_own, range(len(classes)))):
            nested = [
                f"{label} has {', '.join(names[:5])}"
                for label, names in zip(classes, listed.inside, strict=True)
                if names
            ]
            raise UserError(
                f"{folder}: expected one folder per class, got folders with only folders in them "
                f"({'; '.join(nested[:5])}). If these are splits, pass train=FOLDER&test=FOLDER. "
                "If the folders of the classes are one level deeper, pass the path of the folder "
                f"that has them. {chosen}."
            )
    for label, names in zip(classes, listed.files, strict=True):
        if not names:
            raise UserError(
                f"{folder / label}: expected images, got none. Add some, or list the other "
                "classes as classes=NAME,NAME."
            )


def _layout_notes(
    root: Path, splits: Mapping[str, Path], classes: Sequence[str], lists: Mapping[str, _FileList]
) -> list[Note]:
    """Return notes on folders and skipped files."""
    notes = []
    if splits:
        folders = (f"{name} from {os.path.relpath(path, root)}" for name, path in splits.items())
        notes.append(Note(f"splits: {', '.join(folders)}"))
    more = ", ..." if len(classes) > 10 else ""
    several = f"{len(classes)} classes, one folder each: {', '.join(classes[:10])}{more}"
    notes.append(Note(several))
    for k, name in enumerate(classes):
        if alike := [one for one in classes[:k] if _folded(one) == _folded(name)]:
            text = f"the names of the classes {alike[0]} and {name} differ {_ONLY_SPELLING}"
            notes.append(Note(f"{text}; are they one class?", doubtful=True))
    if splits:
        read = [path.resolve() for path in splits.values()]
        unread = [
            name
            for name in folders_in(root)
            if not any(path.is_relative_to((root / name).resolve()) for path in read)
        ]
        if unread:
            text = f"folders of {root} that are not read: {', '.join(unread[:10])}"
            notes.append(Note(text, doubtful=True))
    for folder in dict.fromkeys([root, *splits.values()]):
        notes += loose_notes(folder, "image")
    for one in lists.values():
        notes += other_kinds_notes(one.others, "image")
    notes += litter_notes(sum((one.skipped for one in lists.values()), Counter[str]()))
    train = lists["train"]
    nested = [k for k, names in enumerate(train.inside) if names]
    if nested:
        mixed = ", ".join(f"{classes[k]} ({', '.join(train.inside[k][:3])})" for k in nested[:5])
        notes.append(Note(f"classes with folders in them, whose files count too: {mixed}"))
    if without := [classes[k] for k in nested if not train.has_own(k)]:
        text = f"classes without files of their own, only folders: {', '.join(without[:5])}"
        notes.append(Note(f"{text}; are they classes?", doubtful=True))
    return [Note(visible(note.text), note.doubtful) for note in notes]

"""Images in folders, one a class: ImageNet's layout."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.data.formats.exif import Looked
from vicinal.data.formats.file_listing import file_identity, is_litter, litter_notes
from vicinal.data.formats.images import (
    IMAGE_OPTIONS,
    StoredImages,
    image_notes,
    image_split,
)
from vicinal.data.source_spec import check_options, existing
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible

OPTIONS = (*IMAGE_OPTIONS, "classes", "train", "test", "validation")

_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}
_NO_CLASSES = {"images", "image", "imgs", "img", "masks", "mask", "labels", "annotations"}

_LARGEST = 1 << 29  # bytes of a file


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Encoded images, a file each.

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
                raise UserError(f"{path} has more than {_LARGEST} bytes; that is no image")
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.name(row)} cannot be read: {error.strerror}") from error

    def name(self, row: int) -> str:
        """Return the path of a file."""
        return str(self.root / self.names[row])

    def identity(self, row: int) -> str:
        """Return the path of a file below the root, and its size."""
        return file_identity(self.root, str(self.names[row]))

    def chosen(self, rows: np.ndarray) -> "ImageFiles":
        """Return some of them."""
        return ImageFiles(self.root, self.names[rows])


def load_folder(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``folder:PATH``: a folder a class, any format that Pillow reads.

    Where PATH has folders ``train`` and ``test`` (or ``val``, as ImageNet), these are the splits;
    with all three, ``val`` is the validation split. ``training``, ``testing``, ``valid``,
    ``validation`` and ``dev`` are known too. Where PATH has classes right away, they are divided:
    ``test_fraction`` of each class are test examples. Classes are in the order of their names, and
    so are the files of a class. Folders within a class are read too, also through links; names that
    begin with a dot and what systems leave behind (``Thumbs.db``) are skipped at every depth.

    Options:

    - ``size=N`` makes all images N x N (the shorter side resized, the middle cut out), else all
      have to be of one size.
    - ``channels=1`` reads them gray; the default is 3.
    - ``exif=ignore`` does not turn images by the orientation in their EXIF data.
    - ``alpha=black`` composes transparent images onto black instead of white, ``alpha=ignore``
      drops their transparency.
    - ``classes=A,B`` takes only these folders.
    - ``train=FOLDER``, ``test=FOLDER`` and ``validation=FOLDER`` name splits under PATH that have
      other names.

    Raises:
        UserError: if there is no class, a class without files to train on, or a test class that is
            not in the training split; if the folders look like splits, or like images and masks,
            rather than classes; for an image that cannot be read.
    """
    check_options("folder", options, OPTIONS)
    root = existing(where, load_options.root, what="folder of images")
    if not root.is_dir():
        raise UserError(f"{root} is a file; folder: wants a folder with one folder a class")
    only = options["classes"].split(",") if "classes" in options else None
    splits = _splits(root, options)
    train = splits.get("train", root)
    classes = _classes(train, only)
    lists = {}
    for name, folder in (splits or {"train": root}).items():
        if more := sorted(set(_folders(folder)) - set(classes)) if only is None else []:
            raise UserError(f"{folder} has the class {more[0]}, which {train} has not")
        lists[name] = _listed(folder, classes)
        if not len(lists[name].files):
            raise UserError(f"{folder} has no files in the folders {', '.join(classes[:20])}")
    _check_layout(train, lists["train"], classes, nested=only is not None or bool(splits))
    listed = [(one.files, one.targets) for one in lists.values()]
    if not splits:
        ((files, targets),) = listed
        rows = train_test_rows(
            targets, fraction=load_options.test_fraction, seed=load_options.seed, classes=classes
        )
        listed = [(files.chosen(k), targets[torch.from_numpy(k)]) for k in rows]
    looked = Looked()
    first = StoredImages.by_options(listed[0][0], options, load_options, looked)
    loaded: list[Split] = []
    for images, targets in listed:
        stored = replace(first, files=images, shape=(len(images), *first.shape[1:]))
        loaded.append(image_split(stored, targets, load_options))
    notes = [
        *_layout_notes(root, splits, classes, lists),
        *image_notes(looked, loaded, options, load_options),
    ]
    validation = loaded[2] if len(loaded) > 2 else None
    names = tuple(map(visible, classes))
    return DataSet(names, loaded[0], loaded[1], validation, 255, tuple(notes))


def _splits(root: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of the splits: training, test and perhaps validation; {} for none."""
    named = {name.lower(): root / name for name in _folders(root)}
    found = {
        name: next(named[word] for word in words if word in named)
        for name, words in _SPLITS.items()
        if any(word in named for word in words)
    }
    for name in _SPLITS:
        if name in options:
            found[name] = root / options[name]
            if not found[name].is_dir():
                raise UserError(unknown(f"folder in {root}", options[name], _folders(root)))
    if not found:
        return {}
    if "train" not in found:
        raise UserError(
            f"{root} has {next(iter(found.values()))} but no folder train beside it; "
            "train=FOLDER in the data's name names another"
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if "test" not in found:
        raise UserError(
            f"{root} has a folder train, but neither test nor val beside it; test=FOLDER in the "
            "data's name names another"
        )
    return {name: found[name] for name in ("train", "test", "validation") if name in found}


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not is_litter(e.name))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}") from error


def _classes(folder: Path, only: Sequence[str] | None) -> tuple[str, ...]:
    found = _folders(folder)
    if only is not None:
        shown = [visible(name) for name in found]
        for name in only:
            if name not in shown:
                raise UserError(f"{folder} has no class {name} (it has: {', '.join(shown[:20])})")
            if only.count(name) > 1:
                raise UserError(f"classes={','.join(only)}: {name} comes twice")
        return tuple(found[shown.index(name)] for name in only)
    if len(found) < 2:
        there = f" ({found[0]})" if found else ""
        raise UserError(
            f"{folder} has {len(found)} folders{there}; wanted one a class, two or more"
        )
    return tuple(found)


class _Listed(NamedTuple):
    """What is in the folders of the classes.

    Args:
        files: in the order of the classes.
        targets: ``(n,)`` int64.
        own: how many files each class has that are not in folders within it.
        inside: names of the folders right within each class.
        skipped: names of files and folders that are no images.
    """

    files: ImageFiles
    targets: torch.Tensor
    own: list[int]
    inside: list[list[str]]
    skipped: Counter[str]


def _listed(folder: Path, classes: Sequence[str]) -> _Listed:
    """List the files of all classes; more classes than these are an error."""
    names: list[str] = []
    counts: list[int] = []
    own: list[int] = []
    inside: list[list[str]] = []
    skipped: Counter[str] = Counter()
    for label in classes:
        before = len(names)
        own.append(0)
        inside.append([])
        if (folder / label).is_dir():
            for depth, base, folders, files in _walk(folder / label, skipped):
                if not depth:
                    own[-1], inside[-1] = len(files), folders
                names += [os.path.join(os.path.relpath(base, folder), name) for name in files]
        counts.append(len(names) - before)
    targets = torch.repeat_interleave(torch.arange(len(classes)), torch.tensor(counts))
    return _Listed(ImageFiles(folder, np.array(names)), targets, own, inside, skipped)


def _walk(top: Path, skipped: Counter[str]) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """Walk through a folder as ``os.walk``, by name, through links, each folder once."""
    above = [os.stat(path) for path in top.resolve().parents]
    seen = {(status.st_dev, status.st_ino) for status in above}
    depths = {str(top): 0}
    try:
        for base, folders, files in os.walk(top, onerror=_raise, followlinks=True):
            status = os.stat(base)
            if (status.st_dev, status.st_ino) in seen:  # a link that leads up or back
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            skipped.update(name for name in (*folders, *files) if is_litter(name))
            folders[:] = sorted(name for name in folders if not is_litter(name))
            depths |= {os.path.join(base, name): depths[base] + 1 for name in folders}
            yield depths[base], base, folders, sorted(n for n in files if not is_litter(n))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_layout(folder: Path, listed: _Listed, classes: Sequence[str], *, nested: bool) -> None:
    """Refuse folders that are no classes.

    Args:
        folder: of the training split.
        listed: its files.
        classes: names of its folders.
        nested: whether it is known that the folders are classes, whatever is in them.
    """
    counts = listed.targets.bincount(minlength=len(classes)).tolist()
    if not nested and {name.lower() for name in classes} <= _NO_CLASSES:
        raise UserError(
            f"{folder} has the folders {', '.join(classes)}, which look like images and their "
            f"masks or labels, not like classes; classes={','.join(classes)} reads them as classes"
        )
    if not nested and not any(listed.own) and any(listed.inside):
        some = next(k for k, names in enumerate(listed.inside) if names)
        known = f"; {_as_splits(listed, classes)} names its splits" if len(classes) > 1 else ""
        raise UserError(
            f"{folder}: no folder in it ({', '.join(classes[:5])}) has files of its own, only "
            f"folders: {classes[some]} has {', '.join(listed.inside[some][:5])}. It may be one "
            f"level too high: name a folder in it{known}; classes={','.join(classes[:5])} reads "
            "them as classes"
        )
    for label, count in zip(classes, counts, strict=True):
        if not count:
            raise UserError(
                f"{folder / label} has no files: a class needs images; put some there, or leave "
                "the class out with classes=NAME,NAME in the data's name"
            )


def _as_splits(listed: _Listed, classes: Sequence[str]) -> str:
    """Return options that may name the splits, by words in the names of the folders."""
    options = []
    for word in ("train", "test"):
        fitting = [k for k, name in enumerate(classes) if word in name.lower()]
        path = "FOLDER"
        if fitting:
            inside = listed.inside[fitting[0]]
            path = "/".join([classes[fitting[0]], *(inside if len(inside) == 1 else [])])
        options.append(f"{word}={path}")
    return "&".join(options)


def _layout_notes(
    root: Path, splits: Mapping[str, Path], classes: Sequence[str], lists: Mapping[str, _Listed]
) -> list[Note]:
    """Return which folders are splits and classes, and what was skipped."""
    several = f"{len(classes)} classes, a folder each: {', '.join(classes[:10])}"
    notes = [Note(several + (", ..." if len(classes) > 10 else ""))]
    if splits:
        folders = (f"{name} from {path.relative_to(root)}" for name, path in splits.items())
        notes.insert(0, Note(f"splits: {', '.join(folders)}"))
        there = {path.name for path in splits.values()}
        if more := [name for name in _folders(root) if name not in there]:
            notes.append(Note(f"folders of {root} that are not read: {', '.join(more[:10])}", True))
    skipped = sum((one.skipped for one in lists.values()), Counter[str]())
    notes += litter_notes(skipped)
    mixed = [
        f"{classes[k]} ({', '.join(names[:3])})"
        for k, names in enumerate(lists["train"].inside)
        if names
    ]
    if mixed:
        notes.append(
            Note(f"classes with folders in them, whose files count too: {', '.join(mixed[:5])}")
        )
    without = [
        classes[k] for k, (n, names) in enumerate(zip(*lists["train"][2:4], strict=True)) if not n
    ]
    if without:
        notes.append(
            Note(
                f"classes without files of their own, only folders: {', '.join(without[:5])}; "
                "are they classes?",
                doubtful=True,
            )
        )
    return [Note(visible(note.text), note.doubtful) for note in notes]


def _raise(error: OSError) -> None:
    raise error

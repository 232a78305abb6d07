"""Folders of images with one folder per class, as ImageNet has them: ``folder:PATH``."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, Note
from vicinal.data.formats.file_listing import file_identity, is_litter, litter_notes
from vicinal.data.formats.images import IMAGE_OPTIONS, image_options
from vicinal.data.formats.stored_images import StoredImages, image_notes, image_split
from vicinal.data.source_spec import check_options, existing
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError, unknown
from vicinal.escaping import visible

_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev"),
}
_NOT_CLASSES = {"images", "image", "imgs", "img", "masks", "mask", "labels", "annotations"}

_LARGEST = 1 << 29  # bytes of a file


@dataclass(frozen=True, eq=False)
class FilesOfImages:
    """Encoded images, one file each.

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
        path = self.root / str(self.names[row])
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would block
                raise UserError(f"{path} is not a file")
            if status.st_size > _LARGEST:
                raise UserError(
                    f"{path}: expected an image of at most {_LARGEST} bytes, got {status.st_size}"
                )
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error

    def name(self, row: int) -> str:
        """Return the path of a file."""
        return str(self.root / self.names[row])

    def identity(self, row: int) -> str:
        """Return the path of a file below the root, and its size."""
        return file_identity(self.root, str(self.names[row]))

    def rows(self, rows: np.ndarray) -> "FilesOfImages":
        """Return some of the files."""
        return FilesOfImages(self.root, self.names[rows])


def load_folder(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``folder:PATH``: one folder per class, images of any format that Pillow reads.

    If PATH has folders ``train`` and ``test`` (or ``val``, as in ImageNet), these are the splits;
    with all three, ``val`` is the validation split. ``training``, ``testing``, ``valid``,
    ``validation`` and ``dev`` are known too. If PATH has the classes themselves,
    ``test_fraction`` of each class become test examples. Classes are in the order of their names,
    and so are the files of a class. Folders within a class are read too, also through links; hidden
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
    check_options("folder", options, (*IMAGE_OPTIONS, "classes", *_SPLITS))
    root = existing(where, load_options.root, what="folder of images")
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder with one folder per class, got a file")
    only = options["classes"].split(",") if "classes" in options else None
    splits = _splits(root, options)
    train = splits.get("train", root)
    classes = _classes(train, only)
    lists = {}
    for name, folder in (splits or {"train": root}).items():
        if more := sorted(set(_folders(folder)) - set(classes)) if only is None else []:
            raise UserError(f"{folder} has the class {more[0]}, which is not in {train}")
        lists[name] = _list_files(folder, classes)
        if not len(lists[name].files):
            raise UserError(f"{folder} has no files in the folders {', '.join(classes[:20])}")
    _check_layout(train, lists["train"], classes, explicit=only is not None or bool(splits))
    files = {name: (one.files, one.targets) for name, one in lists.items()}
    if not splits:
        whole, targets = files["train"]
        rows = train_test_rows(
            targets,
            fraction=load_options.test_fraction,
            seed=load_options.seed,
            classes=classes,
        )
        for name, chosen in zip(("train", "test"), rows, strict=True):
            files[name] = whole.rows(chosen), targets[torch.from_numpy(chosen)]
    stored = StoredImages.of(
        files["train"][0], image_options(options, load_options.max_bytes), load_options.skip_bad
    )
    loaded = {
        name: image_split(stored.of_files(images), targets, load_options)
        for name, (images, targets) in files.items()
    }
    notes = *_layout_notes(root, splits, classes, lists), *image_notes(stored, loaded.values())
    return DataSet(
        tuple(map(visible, classes)),
        loaded["train"],
        loaded["test"],
        loaded.get("validation"),
        255,
        notes,
    )


def _splits(root: Path, options: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of the splits; {} if PATH has the classes themselves."""
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
            f"{root}: expected a folder train next to {next(iter(found.values())).name}; "
            "train=FOLDER names another"
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    if "test" not in found:
        raise UserError(
            f"{root}: expected a folder test or val next to train; test=FOLDER names another"
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
                raise UserError(f"classes={','.join(only)}: {name} is repeated")
        return tuple(found[shown.index(name)] for name in only)
    if len(found) < 2:
        there = f" ({found[0]})" if found else ""
        raise UserError(
            f"{folder}: expected two or more folders, one per class, got {len(found)}{there}"
        )
    return tuple(found)


class _FileList(NamedTuple):
    """The files of all classes.

    Args:
        files: in the order of the classes.
        targets: ``(n,)`` int64.
        own: number of files of each class that are not in folders within it.
        inside: names of the folders directly within each class.
        skipped: hidden and system files and folders, counted by name.
    """

    files: FilesOfImages
    targets: torch.Tensor
    own: list[int]
    inside: list[list[str]]
    skipped: Counter[str]


def _list_files(folder: Path, classes: Sequence[str]) -> _FileList:
    """List the files of all classes."""
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
    return _FileList(FilesOfImages(folder, np.array(names)), targets, own, inside, skipped)


def _walk(top: Path, skipped: Counter[str]) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """Walk through a folder as ``os.walk``, in order of names, through links, each folder once."""
    above = [os.stat(path) for path in top.resolve().parents]
    seen = {(status.st_dev, status.st_ino) for status in above}
    depths = {str(top): 0}
    try:
        for base, folders, files in os.walk(top, onerror=_raise, followlinks=True):
            status = os.stat(base)
            if (status.st_dev, status.st_ino) in seen:  # a link to a folder above or read before
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            skipped.update(name for name in (*folders, *files) if is_litter(name))
            folders[:] = sorted(name for name in folders if not is_litter(name))
            depths |= {os.path.join(base, name): depths[base] + 1 for name in folders}
            yield depths[base], base, folders, sorted(n for n in files if not is_litter(n))
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error


def _check_layout(
    folder: Path, listed: _FileList, classes: Sequence[str], *, explicit: bool
) -> None:
    """Raise if the folders are not classes.

    Args:
        folder: of the training split.
        listed: its files.
        classes: names of its folders.
        explicit: whether options or splits say that the folders are classes.
    """
    counts = listed.targets.bincount(minlength=len(classes)).tolist()
    if not explicit and {name.lower() for name in classes} <= _NOT_CLASSES:
        raise UserError(
            f"{folder} has the folders {', '.join(classes)}, which look like images and their "
            f"masks or labels, not like classes; classes={','.join(classes)} reads them as classes"
        )
    if not explicit and not any(listed.own) and any(listed.inside):
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
                f"{folder / label}: expected images, got no files; add some, or list the other "
                "classes as classes=NAME,NAME"
            )


def _as_splits(listed: _FileList, classes: Sequence[str]) -> str:
    """Return options that may name the splits, guessed from the names of the folders."""
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
    root: Path, splits: Mapping[str, Path], classes: Sequence[str], lists: Mapping[str, _FileList]
) -> list[Note]:
    """Return notes on folders and skipped files."""
    several = f"{len(classes)} classes, one folder each: {', '.join(classes[:10])}"
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

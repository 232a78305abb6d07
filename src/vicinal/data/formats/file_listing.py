"""Files in folders: names to skip, names of splits, and what identifies a file."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from vicinal.data.dataset import Note
from vicinal.errors import UserError

_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost.dir"}

SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "val", "valid", "dev"),
}
"""Usual names of each split, in lower case."""

_KINDS = {
    "image": "avif bmp gif heic jfif jp2 jpeg jpg pgm png pnm ppm tif tiff webp",
    "recording": "aif aiff au caf flac mp3 oga ogg opus w64 wav",
    "table": "arff csv parquet tsv",
    "array": "npz",
    "record": "rec",
    "text": "data json jsonl md txt xml",
    "archive": "7z bz2 gz tar tgz xz zip zst",
}
KIND_OF = {f".{ending}": kind for kind, endings in _KINDS.items() for ending in endings.split()}
"""What files are, by their extension."""

T = TypeVar("T")


def splits_by_name(named: Mapping[str, T]) -> dict[str, T]:
    """Return the entries whose names are those of splits, by split.

    Without a test split, the validation split becomes the test split.

    Example:
        >>> splits_by_name({"training": 1, "val": 2, "masks": 3})
        {'train': 1, 'test': 2}
    """
    found = {}
    for split, names in SPLIT_NAMES.items():
        if fitting := [named[name] for name in names if name in named]:
            found[split] = fitting[0]
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden or was left behind by an operating system.

    Example:
        >>> [is_litter(name) for name in (".ipynb_checkpoints", "Thumbs.db", "cat.jpg")]
        [True, True, False]
    """
    return name.startswith(".") or name.lower() in _LITTER


def litter_notes(skipped: Counter[str]) -> list[Note]:
    """Return a note that lists skipped names; none if nothing was skipped.

    Example:
        >>> litter_notes(Counter({"Thumbs.db": 2}))[0].text
        'skipped 2 hidden or system files and folders: Thumbs.db (2)'
    """
    if not skipped:
        return []
    names = ", ".join(f"{name} ({count})" for name, count in skipped.most_common(5))
    return [Note(f"skipped {skipped.total()} hidden or system files and folders: {names}")]


def loose_notes(folder: Path, kind: str) -> list[Note]:
    """Return a warning if a folder of class folders has images or recordings itself.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "cat.jpg").touch()
        ...     note = loose_notes(Path(folder), "image")[0]
        >>> note.text.replace(folder, "pets")
        '1 image in pets is in no class folder and is not read, such as cat.jpg'
    """
    found = entries_in(folder).items()
    kinds = {name: KIND_OF.get(Path(name).suffix.lower()) for name, is_dir in found if not is_dir}
    names = [name for name, of_file in kinds.items() if of_file == kind]
    if not names:
        return []
    several, are = ("s", "are") if len(names) > 1 else ("", "is")
    text = f"{len(names)} {kind}{several} in {folder} {are} in no class folder and {are}"
    return [Note(f"{text} not read, such as {names[0]}", doubtful=True)]


def without_other_kinds(
    classes: Sequence[Sequence[str]], kind: str
) -> tuple[list[list[str]], list[str]]:
    """Divide the files of each class: those that may be of a kind, and those of another kind.

    Example:
        >>> without_other_kinds([["cat/1.jpg", "cat/notes.txt"], ["dog/2"]], "image")
        ([['cat/1.jpg'], ['dog/2']], ['cat/notes.txt'])
    """

    def fits(name: str) -> bool:
        return KIND_OF.get(Path(name).suffix.lower()) in (None, kind)

    files = [[name for name in names if fits(name)] for names in classes]
    return files, [name for names in classes for name in names if not fits(name)]


def other_kinds_notes(others: Sequence[str], kind: str, where: str = "class folders") -> list[Note]:
    """Return a warning if folders have files of another kind."""
    if not others:
        return []
    files = "file that is" if len(others) == 1 else "files that are"
    text = f"{len(others)} {files} no {kind} in {where}, not read, such as {others[0]}"
    return [Note(text, doubtful=True)]


def file_identity(folder: Path, name: str) -> str:
    """Return the name of a file below a folder and its size, -1 if it cannot be read."""
    try:
        size = (folder / name).stat().st_size
    except OSError:
        size = -1
    return f"{name} {size}"


def entries_in(folder: Path) -> dict[str, bool]:
    """Return the sorted names in a folder, without those to skip, and whether each is a folder."""
    try:
        with os.scandir(folder) as entries:
            return dict(sorted((e.name, e.is_dir()) for e in entries if not is_litter(e.name)))
    except OSError as error:
        raise_unreadable(error)


def folders_in(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without those to skip."""
    return [name for name, is_dir in entries_in(folder).items() if is_dir]


def raise_unreadable(error: OSError) -> NoReturn:
    """Raise the error for a file or folder that cannot be read."""
    raise UserError(f"{error.filename} cannot be read: {error.strerror}.") from error


def files_below(folder: Path, label: str, skipped: Counter[str]) -> list[str]:
    """Return the files of a class, sorted by name; links are followed, each folder once.

    Args:
        folder: the folder of the class folders.
        label: name of the class folder.
        skipped: counts the hidden and system files and folders by name.

    Returns:
        The paths of the files, relative to ``folder``.

    Raises:
        UserError: if a folder cannot be read.
    """
    names: list[str] = []
    top = folder / label
    if not top.is_dir():
        return names
    seen = {str(path) for path in top.resolve().parents}
    for base, folders, files in os.walk(top, onerror=raise_unreadable, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:  # a link to a folder above or read before
            folders.clear()
            continue
        seen.add(real)
        skipped.update(name for name in (*folders, *files) if is_litter(name))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        inner = os.path.relpath(base, folder)
        names += [os.path.join(inner, name) for name in sorted(files) if not is_litter(name)]
    return names

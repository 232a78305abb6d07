"""Files in folders: names to skip, names of splits, and what identifies a file."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from vicinal.data.dataset import Note

_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost.dir"}

SPLIT_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "val", "valid", "dev"),
}
"""Usual names of each split, in lower case."""

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


def file_identity(folder: Path, name: str) -> str:
    """Return the name of a file below a folder and its size, -1 if it cannot be read."""
    try:
        size = (folder / name).stat().st_size
    except OSError:
        size = -1
    return f"{name} {size}"

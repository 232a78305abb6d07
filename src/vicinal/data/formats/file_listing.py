"""Files in folders: names to skip, and what identifies a file."""

from collections import Counter
from pathlib import Path

from vicinal.data.dataset import Note

_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost.dir"}


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

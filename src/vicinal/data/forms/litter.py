"""Files and folders that operating systems leave behind among data."""

_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost.dir"}


def is_litter(name: str) -> bool:
    """Say whether a file or folder is hidden or left behind by an operating system.

    Example:
        >>> [is_litter(name) for name in (".ipynb_checkpoints", "Thumbs.db", "cat.jpg")]
        [True, True, False]
    """
    return name.startswith(".") or name.lower() in _LITTER

"""Atomic writes: readers see the old file or the new one, never half of it."""

import contextlib
import errno
import os
from pathlib import Path

from vicinal.errors import UserError

WEIGHTS, STATE = "checkpoint.safetensors", "state.safetensors"
"""File names in the folder of a trial: the network for use, and the state to resume from."""

TEMPORARY = ".vicinal-tmp"
"""The suffix of temporary files."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file by way of a temporary one, so that readers never see half of it.

    The folder is created if it does not exist. File and folder are synced, so the new content
    survives a power failure. A process that is killed while writing leaves the old content, and
    perhaps a temporary file for ``sweep``.

    Raises:
        UserError: if the file cannot be written, for example because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        put_in_place(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}. Free some space or change the "
            "permissions, then run the same command again (train: with --resume), or start over in "
            "another folder with --out."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a finished file or folder into place, so that it survives a power failure."""
    if temporary.is_dir():
        if os.name == "posix":
            os.sync()  # there may be millions of files in it
    else:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        except OSError as error:
            if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
                raise
        finally:
            os.close(parent)


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed processes left in the folder of a study or training.

    Only these folders are searched, because one further down may belong to another study that is
    running. The caller must hold the lock of the folder.
    """
    for place in ("", "figures/", "trials/*/"):
        for path in folder.glob(f"{place}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)

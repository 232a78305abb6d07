"""Files that are replaced as a whole."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from vicinal.errors import UserError

WEIGHTS, STATE = "checkpoint.safetensors", "state.safetensors"
"""File names in the folder of a training: the network for use, and the state to resume from."""

TEMPORARY = ".vicinal-tmp"
"""How the names of temporary files end, so that they are never taken for anything else."""


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a temporary file next to ``path`` and rename it, so that readers never see half a file.

    The folder is created if it does not exist. File and folder are synced, so the new content
    also survives a power failure. A process that is killed meanwhile leaves the old content, and
    perhaps a temporary file for ``sweep``.

    Raises:
        UserError: if it cannot be written, for example to a full disk; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; free some space or choose another "
            "folder with --out (what is finished is kept: the same command goes on from there)"
        ) from error


def put_in_place(beside: Path, path: Path) -> None:
    """Sync a finished file, or all files of a folder, and rename it into place."""
    if beside.is_dir():
        if os.name == "posix":
            os.sync()  # there may be millions of files in it
    else:
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed processes left in the folder of a study or training.

    Looks where these write and nowhere else: a folder further down may be that of another study,
    which is running. Only the process that holds the lock of the folder may call this.
    """
    for place in ("", "figures/", "trials/*/"):
        for path in folder.glob(f"{place}.*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder durable, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

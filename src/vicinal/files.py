"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

from vicinal.errors import UserError


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, then rename it into place; make its folder if need be.

    Whoever reads ``path``, at any moment, finds the old content or the new, never a part of it.

    Raises:
        UserError: if it cannot be written, for example to a full disk; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; free some space or choose another "
            "folder with --out (what is finished is kept: the same command goes on from there)"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

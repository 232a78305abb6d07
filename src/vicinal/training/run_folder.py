"""The folder of a study or a trial: its lock, and differences between settings."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vicinal.errors import UserError
from vicinal.files import sweep

LOCK = ".lock"

_LONGEST = 130
"""How many characters two values may have to be shown in a difference; two hashes have more."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder inside the ``with`` block; create it if it does not exist.

    Temporary files of killed processes are deleted.

    Raises:
        UserError: if it cannot be written, or another process has locked it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
        sweep(folder)
    except Timeout as error:
        raise UserError(
            f"{folder} is in use by another vicinal process. Wait for it, or choose another folder "
            "with --out."
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder}: the folder cannot be written: {error.strerror}. Choose another one with "
            "--out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_empty(folder: Path) -> None:
    """Raise if a locked folder has files other than hidden ones, which a system leaves behind.

    Raises:
        UserError: if it has others.
    """
    others = (one.name for one in folder.iterdir() if not one.name.startswith("."))
    if name := next(others, None):
        raise UserError(
            f"{folder}: expected a study or an empty folder, got other files, such as {name}, and "
            "no recipe.toml. Choose another folder with --out."
        )


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], ignored: Collection[str] = ()
) -> list[str]:
    """Return a clause for each setting that differs, except for the ``ignored`` ones.

    A clause shows the old and the new value, unless they are long, such as hashes.

    Example:
        >>> differences({"training": {"epochs": 3}}, {"training": {"epochs": 5}})
        ['training.epochs was 3 and is 5']
    """
    before, after = flat(old), flat(new)
    clauses = []
    for field in sorted((before.keys() | after.keys()) - set(ignored)):
        values = before.get(field), after.get(field)
        if values[0] != values[1]:
            was, now = ("not set" if value is None else repr(value) for value in values)
            short = len(was) + len(now) < _LONGEST
            clauses.append(f"{field} was {was} and is {now}" if short else f"{field} has changed")
    return clauses


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one dict, with dotted names as keys.

    Example:
        >>> flat({"training": {"epochs": 3}})
        {'training.epochs': 3}
    """
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        # The options of a user's policy may have any names.
        nested = isinstance(value, Mapping) and name != "options"
        fields |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return fields

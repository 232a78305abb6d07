"""Folders that belong to one process at a time, and to one set of settings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from vicinal.errors import UserError
from vicinal.files import sweep

LOCK = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder inside the ``with`` block, and create it if it does not exist.

    Temporary files that a killed process left in it are deleted.

    Raises:
        UserError: if it cannot be written, or another process is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
        sweep(folder)
    except Timeout as error:
        raise UserError(
            f"another vicinal is at work in {folder}; wait for it, or choose another folder "
            "with --out"
        ) from error
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be written: {error.strerror}; choose another one "
            "with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say which settings differ, a phrase for each.

    Example:
        >>> differences({"training": {"epochs": 3}}, {"training": {"epochs": 5}})
        ['training.epochs is 3 there and 5 here']
    """
    old, new = flat(there), flat(here)
    return [
        f"{field} is {_shown(old.get(field))} there and {_shown(new.get(field))} here"
        for field in sorted(old.keys() | new.keys())
        if old.get(field) != new.get(field)
    ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under their dotted names.

    Example:
        >>> flat({"training": {"epochs": 3}})
        {'training.epochs': 3}
    """
    fields: dict[str, Any] = {}
    for name, value in settings.items():
        fields |= (
            flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {f"{prefix}{name}": value}
        )
    return fields


def _shown(value: Any) -> str:
    return "not set" if value is None else repr(value)

"""The error if a package is missing that ``pip install 'vicinal[study]'`` installs."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

from vicinal.errors import UserError

_PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn"}
"""Packages by the name under which they are imported, if it differs by more than an underscore."""


class MissingExtraError(UserError, ImportError):
    """A package of the extra ``study`` is not installed."""

    def __init__(self, module: str) -> None:
        """Name the module, and the command that installs it."""
        super().__init__(
            f"the Python package {module} is not installed. Data sets, studies and the command "
            "line need it. Run: pip install 'vicinal[study]'"
        )


@contextmanager
def extras_named() -> Iterator[None]:
    """Raise an error with the pip command if an import in the block lacks a package of an extra.

    Raises:
        MissingExtraError: instead of ``ModuleNotFoundError``, for packages of the extra only.

    Example:
        >>> with extras_named():
        ...     raise ModuleNotFoundError(name="sklearn.datasets")
        Traceback (most recent call last):
        vicinal.extras.MissingExtraError: the Python package sklearn is not installed...
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        package = _PACKAGES.get(module, module.replace("_", "-"))
        lines = metadata.requires("vicinal") or ()
        if not any(line.startswith(f"{package}>") and "study" in line for line in lines):
            raise
        raise MissingExtraError(module) from error

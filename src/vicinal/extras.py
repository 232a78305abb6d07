"""The packages that ``pip install 'vicinal[study]'`` adds, and the error if one is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from vicinal.errors import UserError

MODULES = frozenset(
    {
        "PIL",
        "filelock",
        "jinja2",
        "lightning_fabric",
        "matplotlib",
        "pooch",
        "pyarrow",
        "pydantic",
        "requests",
        "rich",
        "safetensors",
        "scipy",
        "simplejpeg",
        "sklearn",
        "soundfile",
        "tensorboard",
        "tomli_w",
        "torchmetrics",
        "typer",
        "urllib3",
        "zlib_ng",
    }
)
"""The names under which these packages are imported."""


class MissingExtraError(UserError, ImportError):
    """A package of the extra ``study`` is not installed."""

    def __init__(self, module: str) -> None:
        """Name the module, and the command that installs it."""
        super().__init__(
            f"the Python package {module} is not installed; data sets, studies and the command "
            "line need it. Run: pip install 'vicinal[study]'"
        )


@contextmanager
def extras_named() -> Iterator[None]:
    """Turn the import error of a package of the extra into one that has the pip command.

    Raises:
        MissingExtraError: instead of ``ModuleNotFoundError``, for ``MODULES`` only.

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
        if module not in MODULES:
            raise
        raise MissingExtraError(module) from error


def require(*modules: str) -> None:
    """Raise an error if a module is not installed, without importing any.

    Raises:
        MissingExtraError: if one is missing; it names the first.

    Example:
        >>> require("pydantic", "rich")
    """
    for module in modules:
        with extras_named():
            found = find_spec(module)
        if found is None:
            raise MissingExtraError(module)

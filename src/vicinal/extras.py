"""The packages that ``pip install 'vicinal[study]'`` adds, and the error where one is missing."""

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
"""The modules of these packages, as they are imported."""


class MissingExtraError(UserError, ImportError):
    """A package of the extra ``study`` is not installed."""

    def __init__(self, module: str) -> None:
        """Name the module, and the command that installs it."""
        super().__init__(
            f"the Python package {module} is not installed; pip install 'vicinal[study]' adds it, "
            "with all that data sets, studies and the command line need"
        )


@contextmanager
def extras_named() -> Iterator[None]:
    """Turn the import error of a package of the extra into the sentence with the pip command.

    Raises:
        MissingExtraError: in place of ``ModuleNotFoundError``, for ``MODULES`` alone.

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
    """Raise where a module is not installed; imports none of them.

    Raises:
        MissingExtraError: which names the first that is missing.

    Example:
        >>> require("pydantic", "rich")
    """
    for module in modules:
        with extras_named():
            found = find_spec(module)
        if found is None:
            raise MissingExtraError(module)

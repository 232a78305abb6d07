"""Importing the libraries that networks come from, and the error if their files are missing."""

from importlib import import_module
from typing import Any

from vicinal.errors import UserError
from vicinal.import_path import one_line


def imported(library: str, name: str) -> Any:
    """Return a library that a network comes from.

    Args:
        library: ``"timm"``, ``"torchvision"`` or ``"transformers"``.
        name: the name of the network in the recipe, for the error.

    Raises:
        UserError: if it is not installed, or its import fails.
    """
    try:
        return import_module(library)
    except Exception as error:  # such as an operator that another version of torch lacks
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            reason = f"not installed. Run pip install {library}."
        else:
            reason = f"broken ({one_line(error)}). Try pip install --upgrade {library}."
        raise UserError(f"{name} requires the library {library}, which is {reason}") from error


def unavailable(name: str, error: Exception, *, tried: str, get: str) -> UserError:
    """Return the error for pretrained weights that are neither on this machine nor downloadable.

    Args:
        name: the name of the network in the recipe.
        error: of the library.
        tried: where the library looked, as a sentence without a full stop.
        get: the command that downloads them.
    """
    return UserError(
        f"{name}: its pretrained weights are not available ({one_line(error).removesuffix('.')}). "
        f"{tried}. Run {get} on a machine with internet access and copy what it downloads, or "
        "pass a local file of weights with ?weights=FILE."
    )

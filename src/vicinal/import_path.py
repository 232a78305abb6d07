"""Importing of objects by a path such as ``package.module:name``."""

import os
import sys
from importlib import import_module
from typing import Any

from vicinal.errors import UserError, unknown


def import_object(path: str) -> Any:
    """Import ``MODULE:NAME``; NAME may have dots. Modules of the working directory are found too.

    Raises:
        UserError: if the module cannot be imported, or has no such name.

    Example:
        >>> import_object("collections:OrderedDict.fromkeys").__name__
        'fromkeys'
    """
    module, _, name = path.partition(":")
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # a console script does not search it
    try:
        found: Any = import_module(module)
    except Exception as error:  # code of the module
        raise UserError(
            f"{path}: {module} cannot be imported ({one_line(error)}). Run the "
            f"command in the folder that contains {module.partition('.')[0]}, or install it."
        ) from error
    for word in name.split("."):
        if not hasattr(found, word):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise UserError(unknown(f"name in {module}", word, names))
        found = getattr(found, word)
    return found


def one_line(error: BaseException) -> str:
    """Return the type and message of an error in one line.

    Example:
        >>> one_line(ValueError("no  such  file"))
        'ValueError: no such file'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")


def imported(library: str, name: str) -> Any:
    """Return a library that a network or a data set comes from.

    Args:
        library: its name, such as ``"timm"``.
        name: name of the network or the source, for the error.

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

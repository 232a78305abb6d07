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

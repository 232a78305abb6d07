"""The error if pretrained weights are missing."""

from vicinal.errors import UserError
from vicinal.import_path import one_line


def unavailable(name: str, error: Exception, *, tried: str, get: str) -> UserError:
    """Return the error for pretrained weights that are neither on this machine nor downloadable.

    Args:
        name: the name of the network in the recipe.
        error: error of the library.
        tried: where the library looked, as a sentence without a full stop.
        get: the command that downloads them.
    """
    return UserError(
        f"{name}: its pretrained weights are not available ({one_line(error).removesuffix('.')}). "
        f"{tried}. Run {get} on a machine with internet access and copy what it downloads, or "
        "pass a local file of weights with ?weights=FILE."
    )

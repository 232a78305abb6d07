"""Build networks of timm, of torchvision, and of the user's own modules."""

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from torch import nn

from vicinal.errors import UserError
from vicinal.import_path import import_object, one_line

EXTERNAL_NAMES = "timm:NAME, torchvision:NAME and package.module:callable"
"""The names of external networks, for error messages."""

_LIBRARIES = ("timm", "torchvision")
_AUXILIARY = ("googlenet", "inception_v3")
"""Networks of torchvision that return auxiliary logits in training mode by default."""


def check_external(name: str) -> None:
    """Check the form of an external network's name, without importing anything.

    Raises:
        UserError: if it is neither ``timm:NAME`` nor ``torchvision:NAME`` nor
            ``package.module:callable``.

    Example:
        >>> check_external("timm:resnet18")
        >>> check_external("timm:")
        Traceback (most recent call last):
        ...
        vicinal.errors.UserError: timm: lacks the name of a network. Try timm:resnet18.
    """
    module, _, attribute = name.partition(":")
    if module in _LIBRARIES:
        if not attribute.strip():
            raise UserError(f"{name} lacks the name of a network. Try {module}:resnet18.")
    elif not all(word.isidentifier() for word in (*module.split("."), *attribute.split("."))):
        raise UserError(f"network {name!r}: names with a colon are {EXTERNAL_NAMES}.")


def imported_module(name: str) -> str | None:
    """Return the user's module that building a network imports, or None.

    Args:
        name: as for ``build``.

    Example:
        >>> imported_module("my.networks:wide")
        'my.networks'
        >>> imported_module("timm:resnet18") is None
        True
    """
    module, colon, _ = name.partition(":")
    return module if colon and module not in _LIBRARIES else None


def build_external(name: str, *, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build an external network; only the library that it comes from is imported.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:callable``. The callable is
            called with ``(shape, classes)`` and returns a module.
        shape: of one example; timm and torchvision need (channels, height, width), torchvision
            with 3 channels.
        classes: number of logits.

    Raises:
        UserError: if the library or module cannot be imported, has nothing of that name, or does
            not return a module.

    Example:
        >>> build_external("vicinal.models.mlp:MLP", shape=(4,), classes=3).head
        Linear(in_features=128, out_features=3, bias=True)
    """
    if imported_module(name) is not None:
        function = import_object(name)
        return _built(name, lambda: function(shape, classes))
    library, _, network = name.partition(":")
    if len(shape) != 3:
        raise UserError(
            f"{name} expects images of shape (channels, height, width), got examples of shape "
            f"{shape}. Try mlp."
        )
    if library == "timm":
        timm = _imported("timm", name)
        if not timm.is_model(network):
            raise _unknown("timm", network, timm.list_models())
        how = {"pretrained": False, "num_classes": classes, "in_chans": shape[0]}
        return _built(name, lambda: timm.create_model(network, **how))
    if shape[0] != 3:
        raise UserError(
            f"{name} expects 3 channels, got {shape[0]}. Try timm:{network}, which takes any "
            "number of channels if timm has that network."
        )
    models = _imported("torchvision", name).models
    # Only classifiers: building other networks may start a download.
    known = models.list_models(module=models)
    if network.lower() not in known:
        raise _unknown("torchvision", network, known)
    settings: dict[str, Any] = {"weights": None, "num_classes": classes}
    if network.lower() in _AUXILIARY:
        settings |= {"aux_logits": False, "init_weights": True}
    return _built(name, lambda: models.get_model(network, **settings))


def _imported(library: str, name: str) -> Any:
    try:
        return import_module(library)
    except Exception as error:  # such as an operator that another version of torch lacks
        if isinstance(error, ModuleNotFoundError) and error.name == library:
            reason = f"not installed. Run pip install {library}."
        else:
            reason = f"broken ({one_line(error)}). Try pip install --upgrade {library}."
        raise UserError(f"{name} requires the library {library}, which is {reason}") from error


def _built(name: str, make: Callable[[], Any]) -> nn.Module:
    try:
        network = make()
    except Exception as error:  # other people's code may raise anything
        raise UserError(
            f"{name} failed to build a network for these examples and classes "
            f"({one_line(error)}). Call it directly to see where."
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name}: expected a torch.nn.Module from the call with (shape, classes), got "
            f"{type(network).__name__}. Return the network itself."
        )
    return network


def _unknown(library: str, network: str, names: Iterable[str]) -> UserError:
    """Return an error with the nearest names, since libraries have too many to list them all."""
    known = list(names)
    near = difflib.get_close_matches(network, known, n=5, cutoff=0.4) or known[:5]
    return UserError(
        f"{library} has no classification network {network!r}. The nearest of {len(known)} are "
        f"{', '.join(near)}."
    )

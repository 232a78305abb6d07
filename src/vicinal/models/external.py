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

_AUXILIARY = {"googlenet", "inception_v3"}
"""Networks of torchvision that return auxiliary logits in training mode, unless told not to."""


def is_external(name: str) -> bool:
    """Return whether a name is that of an external network, which has a colon.

    Example:
        >>> is_external("timm:resnet18"), is_external("small-cnn")
        (True, False)
    """
    return ":" in name


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
        raise UserError(f"network {name!r}: names with a colon are {EXTERNAL_NAMES}")


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
    check_external(name)
    module, _, attribute = name.partition(":")
    make = _LIBRARIES.get(module)
    if make is None:
        found = import_object(name)
        if not callable(found):
            raise UserError(
                f"{name}: expected a function or class that builds a network from (shape, "
                f"classes), got the {type(found).__name__} {found!r}"
            )
        return _built(name, lambda: found(shape, classes))
    if len(shape) != 3:
        raise UserError(
            f"{name} expects images of shape (channels, height, width), got examples of shape "
            f"{shape}. Try mlp."
        )
    return make(name, attribute, shape[0], classes)


def _from_timm(name: str, network: str, channels: int, classes: int) -> nn.Module:
    timm = _library("timm", name)
    if not timm.is_model(network):
        raise UserError(_unknown("timm", "network", network, timm.list_models()))
    settings = {"pretrained": False, "num_classes": classes, "in_chans": channels}
    return _built(name, lambda: timm.create_model(network, **settings))


def _from_torchvision(name: str, network: str, channels: int, classes: int) -> nn.Module:
    if channels != 3:
        raise UserError(
            f"{name} expects 3 channels, got {channels}. Try timm:{network}, which takes any "
            "number of channels if timm has that network."
        )
    models = _library("torchvision", name).models
    # Its classifiers only: building other networks may start a download.
    known = models.list_models(module=models)
    if network.lower() not in known:
        raise UserError(_unknown("torchvision", "network for classification", network, known))
    settings: dict[str, Any] = {"weights": None, "num_classes": classes}
    if network.lower() in _AUXILIARY:
        settings |= {"aux_logits": False, "init_weights": True}
    return _built(name, lambda: models.get_model(network, **settings))


_LIBRARIES = {"timm": _from_timm, "torchvision": _from_torchvision}


def _library(package: str, name: str) -> Any:
    try:
        return import_module(package)
    except Exception as error:  # such as an operator that another version of torch lacks
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            reason = f"not installed. Run pip install {package}."
        else:
            reason = f"broken ({one_line(error)}). Try pip install --upgrade {package}."
        raise UserError(f"{name} requires the library {package}, which is {reason}") from error


def _built(name: str, make: Callable[[], Any]) -> nn.Module:
    try:
        network = make()
    except Exception as error:  # other people's code may raise anything
        raise UserError(
            f"{name} failed to build a network for these examples and classes "
            f"({one_line(error)}). Call it by itself to see where."
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name}: expected a torch.nn.Module from the call with (shape, classes), got "
            f"{type(network).__name__}. Return the network itself."
        )
    return network


def _unknown(owner: str, kind: str, name: str, names: Iterable[str]) -> str:
    """Return the error message for an unknown name; libraries have too many to list them all."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    listed = f"the nearest of {len(known)} are {', '.join(near)}" if near else "it has none"
    return f"{owner} has no {kind} {name!r}; {listed}"

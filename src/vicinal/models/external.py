"""Networks of other libraries and of the user, by names with a colon in them."""

import difflib
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from torch import nn

from vicinal.errors import UserError
from vicinal.import_path import import_object, one_line

FORMS = "timm:NAME, torchvision:NAME and package.module:callable"
"""The names that networks from elsewhere have, for sentences."""

_WITH_HELPERS = {"googlenet", "inception_v3"}
"""What in torchvision puts out more than scores while it trains, unless it is told not to."""


def is_foreign(name: str) -> bool:
    """Say whether a name speaks of a network from elsewhere: whether there is a colon in it.

    Example:
        >>> is_foreign("timm:resnet18"), is_foreign("small-cnn")
        (True, False)
    """
    return ":" in name


def check_foreign(name: str) -> None:
    """Raise where no network can have such a name; nothing is imported.

    Args:
        name: a name with a colon in it.

    Raises:
        UserError: if it is neither ``timm:NAME`` nor ``torchvision:NAME`` nor
            ``package.module:callable``.

    Example:
        >>> check_foreign("timm:resnet18")
        >>> check_foreign("my.networks:wide")
        >>> check_foreign("timm:")
        Traceback (most recent call last):
        ...
        vicinal.errors.UserError: timm: lacks the name of a network, such as timm:resnet18
    """
    where, _, what = name.partition(":")
    if where in _LIBRARIES:
        if not what.strip():
            raise UserError(f"{name} lacks the name of a network, such as {where}:resnet18")
    elif not all(word.isidentifier() for word in (*where.split("."), *what.split("."))):
        raise UserError(f"{name!r} names no network: names with a colon are {FORMS}")


def imported_module(name: str) -> str | None:
    """Return the module that building a network imports; None if it is none of the user's.

    Args:
        name: as for ``build``.

    Example:
        >>> imported_module("my.networks:wide")
        'my.networks'
        >>> imported_module("timm:resnet18") is None
        True
    """
    where, colon, _ = name.partition(":")
    return where if colon and where not in _LIBRARIES else None


def build_foreign(name: str, *, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a network from elsewhere; only the library that it comes from is imported.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:callable``; what is called
            gets ``(shape, classes)`` and answers with a module.
        shape: of one example; libraries take (channels, height, width), torchvision 3 channels.
        classes: number of scores that come out.

    Raises:
        UserError: if the library or module cannot be imported, has nothing of that name, or does
            not make a module of it.

    Example:
        >>> build_foreign("vicinal.models.mlp:MLP", shape=(4,), classes=3).head
        Linear(in_features=128, out_features=3, bias=True)
    """
    check_foreign(name)
    where, _, what = name.partition(":")
    make = _LIBRARIES.get(where)
    if make is None:
        found = _imported(name)
        return _built(name, lambda: found(shape, classes))
    if len(shape) != 3:
        raise UserError(
            f"{name} takes pictures of shape (channels, height, width), not examples of shape "
            f"{shape}; try mlp"
        )
    return make(name, what, shape[0], classes)


def _from_timm(name: str, what: str, channels: int, classes: int) -> nn.Module:
    timm = _library("timm", name)
    if not timm.is_model(what):
        raise UserError(_nearest("timm", "network", what, timm.list_models()))
    return _built(
        name,
        lambda: timm.create_model(what, pretrained=False, num_classes=classes, in_chans=channels),
    )


def _from_torchvision(name: str, what: str, channels: int, classes: int) -> nn.Module:
    if channels != 3:
        raise UserError(
            f"{name} takes 3 channels, and the examples have {channels}; timm:{what} takes any "
            "number, if timm has a network of that name"
        )
    models = _library("torchvision", name).models
    # Of all its networks those that put out scores; to ask for others may begin a download.
    known = models.list_models(module=models)
    if what.lower() not in known:
        raise UserError(_nearest("torchvision", "network for classification", what, known))
    settings: dict[str, Any] = {"weights": None, "num_classes": classes}
    if what.lower() in _WITH_HELPERS:
        settings |= {"aux_logits": False, "init_weights": True}
    return _built(name, lambda: models.get_model(what, **settings))


_LIBRARIES = {"timm": _from_timm, "torchvision": _from_torchvision}


def _library(package: str, name: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise _broken(package, name, error) from error
        raise UserError(
            f"{name} wants the library {package}, which is not installed; pip install {package} "
            "adds it"
        ) from error
    except Exception as error:  # an operator that another version of torch lacks, for one
        raise _broken(package, name, error) from error


def _broken(package: str, name: str, error: Exception) -> UserError:
    return UserError(
        f"{name} wants the library {package}, which cannot be imported here ({one_line(error)}); "
        f"pip install --upgrade {package} may mend it"
    )


def _imported(name: str) -> Callable[..., Any]:
    """Return what ``package.module:callable`` names."""
    found = import_object(name)
    if not callable(found):
        raise UserError(
            f"{name}: expected a function or class that makes a network of (shape, classes), got "
            f"the {type(found).__name__} {found!r}"
        )
    made: Callable[..., Any] = found
    return made


def _built(name: str, make: Callable[[], Any]) -> nn.Module:
    try:
        network = make()
    except Exception as error:  # somebody else's code
        raise UserError(
            f"{name} failed to make a network of these examples and classes ({one_line(error)}); "
            "call it by itself to see where"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(
            f"{name} wants a torch.nn.Module to come out of the call with (shape, classes), but "
            f"something of type {type(network).__name__} came; return the network itself"
        )
    return network


def _nearest(owner: str, what: str, name: str, names: Iterable[str]) -> str:
    """Return the sentence for a name that is not there; libraries have too many to list them."""
    known = list(names)
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5]
    listed = f"the nearest of {len(known)} are {', '.join(near)}" if near else "it has none"
    return f"{owner} has no {what} {name!r}; {listed}"

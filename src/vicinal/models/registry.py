"""Networks by name, and the places in each where mixing makes sense."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from vicinal.errors import UserError, unknown
from vicinal.models.small_cnn import SmallCNN


class Network(NamedTuple):
    """How a network is built, and after which of its modules it can be mixed."""

    make: Callable[[int, int], nn.Module]
    places: tuple[str, ...]


NETWORKS = {"small-cnn": Network(SmallCNN, SmallCNN.mixing_places)}
"""The networks by their names."""


def build(name: str, *, channels: int, classes: int) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Raises:
        UserError: if there is no network of that name.

    Example:
        >>> sum(p.numel() for p in build("small-cnn", channels=1, classes=10).parameters())
        19258
    """
    return _network(name).make(channels, classes)


def mixing_places(name: str) -> tuple[str, ...]:
    """Return the places where a network can be mixed: its input, then modules of it by name.

    Raises:
        UserError: if there is no network of that name.

    Example:
        >>> mixing_places("small-cnn")
        ('input', 'stage1', 'stage2', 'stage3')
    """
    return ("input", *_network(name).places)


def _network(name: str) -> Network:
    if name not in NETWORKS:
        raise UserError(unknown("network", name, NETWORKS))
    return NETWORKS[name]

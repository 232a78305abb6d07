"""Networks by name, and the places in each where mixing makes sense."""

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from vicinal.errors import UserError, unknown
from vicinal.models.mlp import MLP
from vicinal.models.small_cnn import SmallCNN


class Network(NamedTuple):
    """How a network is built.

    Args:
        make: from the shape of one example and the number of classes.
        places: after which of its modules it can be mixed.
        dimensions: how many an example may have.
    """

    make: Callable[[tuple[int, ...], int], nn.Module]
    places: tuple[str, ...]
    dimensions: tuple[int, ...]


NETWORKS = {
    "small-cnn": Network(SmallCNN, SmallCNN.mixing_places, dimensions=(3,)),
    "mlp": Network(MLP, MLP.mixing_places, dimensions=(1, 2, 3)),
}
"""The networks by their names."""


def build(name: str, *, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global generator.

    Args:
        name: one of ``NETWORKS``.
        shape: of one example, such as (channels, height, width).
        classes: number of scores that come out.

    Raises:
        UserError: if there is no network of that name, or it does not take such examples.

    Example:
        >>> sum(p.numel() for p in build("small-cnn", shape=(1, 8, 8), classes=10).parameters())
        19258
    """
    network = _network(name)
    if len(shape) not in network.dimensions:
        takers = ", ".join(n for n, other in NETWORKS.items() if len(shape) in other.dimensions)
        raise UserError(
            f"{name} does not take examples of shape {tuple(shape)}; these do: {takers or 'none'}"
        )
    return network.make(tuple(shape), classes)


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

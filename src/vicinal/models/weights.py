"""Initialization of weights."""

from torch import nn


def initialize(network: nn.Module) -> None:
    """Initialize convolutions after He et al. (arXiv 1502.01852), with ``mode="fan_out"``.

    Other layers keep PyTorch's default initialization.

    Example:
        >>> layer = nn.Conv2d(8, 64, 3)
        >>> initialize(layer)
        >>> 0.9 < layer.weight.std().item() * (64 * 9 / 2) ** 0.5 < 1.1
        True
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

"""A multilayer perceptron for tables."""

import math

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers of 128 ReLU units, as used by Zhang et al. for tabular data.

    See section 3.6 of their paper (https://arxiv.org/abs/1710.09412).

    Args:
        shape: shape of one example; all of its values are features.
        classes: number of logits.

    Example:
        >>> import torch
        >>> MLP((4,), 3)(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Build the network with PyTorch's default initialization."""
        super().__init__()
        self.layer1 = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 128), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Linear(128, 128), nn.ReLU())
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, ...)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.layer2(self.layer1(x)))
        return logits

"""Densely connected networks with bottlenecks and compression."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.models.weights import initialize


class DenseNet(nn.Module):
    """DenseNet-BC for images of about 32x32 pixels.

    Huang et al., "Densely Connected Convolutional Networks" (https://arxiv.org/abs/1608.06993),
    section 4.1: a 3x3 convolution to ``2 * growth`` channels and three blocks of equally many
    layers. Each layer is a 1x1 convolution to ``4 * growth`` channels and a 3x3 convolution, whose
    output is concatenated to its input. Transitions between blocks halve channels and size.

    Args:
        shape: shape of one example, (channels, height, width).
        classes: number of logits.
        depth: number of layers with weights, a multiple of 6 plus 4.
        growth: number of channels that each layer adds.

    Example:
        >>> sum(p.numel() for p in DenseNet((3, 32, 32), 10, depth=100, growth=12).parameters())
        769162
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, depth: int, growth: int) -> None:
        """Build the network, with the initialization of He et al. (arXiv 1502.01852)."""
        super().__init__()
        channels = 2 * growth
        self.stem = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for k in range(3):
            block = nn.Sequential()
            for _ in range((depth - 4) // 6):
                block.append(_Dense(channels, growth))
                channels += growth
            self.blocks.add_module(f"block{k + 1}", block)
            if k < 2:
                self.blocks.add_module(f"between{k + 1}", _halved(channels))
                channels //= 2
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        x = F.relu(self.norm(self.blocks(self.stem(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Dense(nn.Module):
    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


def _halved(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2),
    )

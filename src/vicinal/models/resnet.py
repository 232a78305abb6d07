"""Residual networks for images of about 224x224 pixels."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.models.weights import initialize


class ResNet(nn.Module):
    """ResNet with bottlenecks, and ResNeXt, for ImageNet.

    From He et al., "Deep Residual Learning" (https://arxiv.org/abs/1512.03385), but with the stride
    at the 3x3 convolution, as has become common. Groups are those of Xie et al.
    (https://arxiv.org/abs/1611.05431). The network is a 7x7 convolution with stride 2, max pooling,
    four stages, global average pooling, and a linear layer. The last batch norm of each unit starts
    with weight zero (Goyal et al., https://arxiv.org/abs/1706.02677).

    Args:
        shape: shape of one example, (channels, height, width).
        classes: number of logits.
        units: number of units in each stage.
        groups: number of groups of the 3x3 convolutions.
        group_width: number of channels of a group in the first stage.

    Example:
        >>> network = ResNet((3, 224, 224), 1000, units=(3, 4, 6, 3))
        >>> sum(p.numel() for p in network.parameters())
        25557032
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        units: Sequence[int],
        groups: int = 1,
        group_width: int = 64,
    ) -> None:
        """Build the network, with the initialization of He et al. (arXiv 1502.01852)."""
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels, self.stages = 64, nn.Sequential()
        for k, count in enumerate(units):
            stage = nn.Sequential()
            for j in range(count):
                stride = 2 if k and not j else 1
                inner = groups * group_width * 2**k
                stage.append(_Bottleneck(channels, inner, 256 * 2**k, stride, groups))
                channels = 256 * 2**k
            self.stages.add_module(f"stage{k + 1}", stage)
        self.head = nn.Linear(channels, classes)
        initialize(self)
        for module in self.modules():
            if isinstance(module, _Bottleneck):
                nn.init.zeros_(module.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


class _Bottleneck(nn.Module):
    def __init__(self, channels: int, inner: int, outer: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outer)
        self.around: nn.Module = nn.Identity()
        if stride > 1 or channels != outer:
            self.around = nn.Sequential(
                nn.Conv2d(channels, outer, 1, stride=stride, bias=False), nn.BatchNorm2d(outer)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.around(x))

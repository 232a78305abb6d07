"""Pre-activation residual networks, narrow and wide."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.models.weights import initialize


class PreActResNet(nn.Module):
    """Pre-activation ResNet for images of about 32x32 pixels, without initial pooling.

    He et al., "Identity Mappings in Deep Residual Networks" (https://arxiv.org/abs/1603.05027): a
    3x3 convolution, stages of units, batch norm, ReLU, global average pooling, a linear layer. All
    stages but the first have stride 2. With wider stages it is the Wide ResNet of Zagoruyko and
    Komodakis (https://arxiv.org/abs/1605.07146). Each unit has a dropout layer after the ReLU
    between its first two convolutions, as in section 3.4 of the mixup paper
    (https://arxiv.org/abs/1710.09412), with probability 0 unless ``training.dropout`` sets it.

    Args:
        shape: shape of one example, (channels, height, width).
        classes: number of logits.
        units: number of units in each stage.
        widths: number of channels within the units of each stage.
        stem: number of channels of the first convolution.
        bottleneck: whether units have three convolutions, and four times as many output channels,
            as ResNets of 50 and more layers do; otherwise they have two.
        projected: whether the shortcut of the very first unit is a convolution, even if the number
            of channels stays the same.
        normalize_input: whether a batch norm without weights precedes the first convolution.
        normalize_stem: whether the first convolution is followed by a batch norm and ReLU.
        activated_identity: whether the identity shortcut of a unit starts after the unit's first
            norm and ReLU, and not before them.
        normalize_output: whether the last stage is followed by a batch norm and ReLU.
        he: whether convolutions are initialized after He et al. (arXiv 1502.01852), rather than by
            PyTorch's default.

    Example:
        >>> network = PreActResNet((3, 32, 32), 10)
        >>> sum(p.numel() for p in network.parameters())
        11172170
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        units: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        bottleneck: bool = False,
        projected: bool = False,
        normalize_input: bool = False,
        normalize_stem: bool = False,
        activated_identity: bool = False,
        normalize_output: bool = True,
        he: bool = True,
    ) -> None:
        """Build the network."""
        super().__init__()
        first = nn.BatchNorm2d(shape[0], affine=False) if normalize_input else nn.Identity()
        self.stem = nn.Sequential(first, nn.Conv2d(shape[0], stem, 3, padding=1, bias=False))
        if normalize_stem:
            self.stem.extend([nn.BatchNorm2d(stem), nn.ReLU()])
        channels, self.stages = stem, nn.Sequential()
        for k, (count, inner) in enumerate(zip(units, widths, strict=True)):
            outer = 4 * inner if bottleneck else inner
            stage = nn.Sequential()
            for j in range(count):
                stride = 2 if k and not j else 1
                around = stride > 1 or channels != outer or (projected and not k and not j)
                shortcut = {"around": around, "activated": activated_identity}
                stage.append(_Unit(channels, inner, outer, stride=stride, **shortcut))
                channels = outer
            self.stages.add_module(f"stage{k + 1}", stage)
        self.norm = nn.BatchNorm2d(channels) if normalize_output else None
        self.head = nn.Linear(channels, classes)
        if he:
            initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        x = self.stages(self.stem(x))
        if self.norm is not None:
            x = F.relu(self.norm(x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class _Unit(nn.Module):
    """Batch norm, ReLU and a convolution: 3x3 twice, or 1x1, 3x3 and 1x1 for a bottleneck."""

    def __init__(
        self, channels: int, inner: int, outer: int, *, stride: int, around: bool, activated: bool
    ) -> None:
        super().__init__()
        self.activated, self.bottleneck = activated, inner != outer
        kernel, first, second = (1, 1, stride) if self.bottleneck else (3, stride, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(
            channels, inner, kernel, stride=first, padding=kernel // 2, bias=False
        )
        self.norm2 = nn.BatchNorm2d(inner)
        self.dropout = nn.Dropout(0.0)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=second, padding=1, bias=False)
        if self.bottleneck:
            self.norm3 = nn.BatchNorm2d(inner)
            self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.around = nn.Conv2d(channels, outer, 1, stride=stride, bias=False) if around else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        y = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(active)))))
        if self.bottleneck:
            y = self.conv3(F.relu(self.norm3(y)))
        identity = active if self.activated else x
        out: Tensor = y + (identity if self.around is None else self.around(active))
        return out

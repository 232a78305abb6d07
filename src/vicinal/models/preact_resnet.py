"""Residual networks whose units begin with normalization, narrow and wide."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vicinal.models.weights import initialize


class PreActResNet(nn.Module):
    """Pre-activation ResNet for pictures of about 32x32 pixels, without a first pooling.

    He et al., "Identity Mappings in Deep Residual Networks" (https://arxiv.org/abs/1603.05027): a
    3x3 convolution, stages of units, normalization, ReLU, the mean over places, a linear layer.
    From the second on, stages have stride 2. With wider stages it is the Wide ResNet of Zagoruyko
    and Komodakis (https://arxiv.org/abs/1605.07146).

    Args:
        shape: of one example, (channels, height, width).
        classes: number of scores that come out.
        units: of each stage.
        widths: channels within the units of each stage.
        stem: channels of the first convolution.
        bottleneck: units of three convolutions with four times the channels at their ends, as from
            50 layers on; else of two.
        projected: whether the first unit has a convolution on its way around, though the channels
            are the same.
        normalize_input: whether a batch norm without weights stands before everything.
        normalize_stem: whether the first convolution is followed by a batch norm and ReLU.
        activated_identity: whether the identity shortcut of a unit starts after the unit's first
            norm and ReLU, and not before them.
        normalize_output: whether the last stage is followed by a batch norm and ReLU.
        he: whether convolutions begin with weights after He et al. (arXiv 1502.01852); otherwise
            with PyTorch's default.

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
                make = _Bottleneck if bottleneck else _Basic
                stage.append(make(channels, inner, stride, around, activated_identity))
                channels = outer
            self.stages.add_module(f"stage{k + 1}", stage)
        self.norm = nn.BatchNorm2d(channels) if normalize_output else None
        self.head = nn.Linear(channels, classes)
        if he:
            initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to scores ``(batch, classes)``."""
        x = self.stages(self.stem(x))
        if self.norm is not None:
            x = F.relu(self.norm(x))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


class _Basic(nn.Module):
    """Normalization, ReLU and a 3x3 convolution, twice."""

    def __init__(
        self, channels: int, width: int, stride: int, around: bool, activated: bool
    ) -> None:
        super().__init__()
        self.activated = activated
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.around = nn.Conv2d(channels, width, 1, stride=stride, bias=False) if around else None

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        y = self.conv2(F.relu(self.norm2(self.conv1(active))))
        identity = active if self.activated else x
        out: Tensor = y + (identity if self.around is None else self.around(active))
        return out


class _Bottleneck(nn.Module):
    """The same with 1x1, 3x3 and 1x1 convolutions, the last to four times the channels."""

    def __init__(
        self, channels: int, width: int, stride: int, around: bool, activated: bool
    ) -> None:
        super().__init__()
        self.activated = activated
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.around = (
            nn.Conv2d(channels, 4 * width, 1, stride=stride, bias=False) if around else None
        )

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x))
        y = self.conv2(F.relu(self.norm2(self.conv1(active))))
        y = self.conv3(F.relu(self.norm3(y)))
        identity = active if self.activated else x
        out: Tensor = y + (identity if self.around is None else self.around(active))
        return out

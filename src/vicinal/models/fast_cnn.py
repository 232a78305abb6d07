"""A convolutional network that learns CIFAR-10 in seconds."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 12.64**0.5
"""By how much scores are multiplied, and first weights of the head divided."""


class FastCNN(nn.Module):
    """Whitened 2x2 patches, three blocks of two 3x3 convolutions, and the maximum over places.

    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (https://arxiv.org/abs/2404.00498),
    with the head of its author's later program: its weights begin with standard deviation 1, and
    scores are divided by the number of its inputs. The first convolution, of 2x2 without padding to
    eight filters a channel, does not learn: ``whiten_by`` sets it from inputs, and until then it is
    as PyTorch draws it. Filters of the 3x3 convolutions begin by passing their inputs on, as far as
    there are inputs. Norms learn a bias alone, and soon forget old batches. Where 32x32 pixels come
    in, the maximum is over 3x3 places.

    Args:
        shape: of one example, (channels, height, width), 9 or more pixels each way.
        classes: number of scores that come out.
        widths: channels of each block.

    Example:
        >>> sum(p.numel() for p in FastCNN((3, 32, 32), 10).parameters())
        1972792
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int, widths: Sequence[int] = (64, 256, 256)
    ) -> None:
        """Build the network, with PyTorch's default draw where nothing else is said above."""
        super().__init__()
        channels = 2 * shape[0] * 4
        self.whiten = nn.Conv2d(shape[0], channels, 2)
        self.whiten.weight.requires_grad_(False)
        self.block1 = _block(channels, widths[0])
        self.block2 = _block(widths[0], widths[1])
        self.block3 = _block(widths[1], widths[2])
        self.head = nn.Linear(widths[2], classes, bias=False)
        with torch.no_grad():
            self.head.weight /= HEAD * self.head.weight.std()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to scores ``(batch, classes)``."""
        x = self.block3(self.block2(self.block1(F.gelu(self.whiten(x)))))
        scores: Tensor = self.head(x.amax((2, 3))) * (HEAD / self.head.in_features)
        return scores

    @torch.no_grad()
    def whiten_by(self, x: Tensor) -> None:
        """Set the first convolution, so that what comes out of it is uncorrelated on such inputs.

        Its filters are the eigenvectors of the second moments of all 2x2 patches, each divided by
        the square root of its eigenvalue and 5e-4, the largest eigenvalue last; then all of them
        with the other sign. The same inputs give the same filters on any device and with any number
        of threads, to rounding: it is worked out on the CPU, in float64.

        Args:
            x: ``(n, channels, height, width)``, normalized inputs; 5,000 of CIFAR-10 do. Not
                modified.

        Raises:
            ValueError: if that is not their shape, or if they are not floating point.

        Example:
            >>> network = FastCNN((1, 9, 9), 2)
            >>> x = torch.randn(64, 1, 9, 9).cumsum(3)  # neighbors are alike
            >>> network.whiten_by(x)
            >>> first = (network.whiten(x) - network.whiten.bias[:, None, None])[:, :4]
            >>> moments = first.transpose(0, 1).flatten(1)
            >>> (moments @ moments.T / moments.shape[1] - torch.eye(4)).abs().max().item() < 0.01
            True
        """
        channels = self.whiten.in_channels
        fits = x.dim() == 4 and x.shape[1] == channels and len(x) > 0 and min(x.shape[2:]) >= 2
        if not (fits and x.is_floating_point()):
            raise ValueError(
                f"whiten_by needs normalized inputs of shape (n, {channels}, height, width) with "
                f"2x2 pixels or more; got {tuple(x.shape)}, {x.dtype}: pass a part of the training "
                "inputs as the network gets them."
            )
        size, count = 4 * channels, 0
        moments = torch.zeros(size, size, dtype=torch.float64)
        for part in x.split(256):
            patches = F.unfold(part.cpu().double(), 2).transpose(0, 1).flatten(1)
            moments += patches @ patches.T
            count += patches.shape[1]
        values, vectors = torch.linalg.eigh(moments / count)
        vectors = vectors.T / (values.clamp(min=0) + 5e-4).sqrt()[:, None]
        filters = (vectors * _signs(vectors)).reshape(size, channels, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def _signs(vectors: Tensor) -> Tensor:
    """Return what makes the first large entry of each row positive.

    An eigenvector may come out with either sign. The largest entry of all is no guide: others are
    often as large, and rounding decides.
    """
    large = vectors.abs() > vectors.abs().amax(1, keepdim=True) / 2
    return vectors.gather(1, large.int().argmax(1, keepdim=True)).sign()


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(channels, width),
        nn.MaxPool2d(2),
        _norm(width),
        nn.GELU(),
        _convolution(width, width),
        _norm(width),
        nn.GELU(),
    )


def _convolution(channels: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:channels])
    return layer


def _norm(width: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer

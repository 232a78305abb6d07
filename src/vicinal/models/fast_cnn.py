"""A convolutional network that learns CIFAR-10 in seconds."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 12.64**0.5
"""Factor of the logits, and divisor of the head's initial weights. With SGD, this has the effect of
a 12.64 times higher learning rate of the head.
"""


class FastCNN(nn.Module):
    """Whitened 2x2 patches, three blocks of two 3x3 convolutions, and global max pooling.

    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (https://arxiv.org/abs/2404.00498),
    with the last layer of its author's later code: the initial weights of this layer have std
    ``1 / HEAD``, and its outputs are multiplied by ``HEAD`` and divided by its number of inputs.
    The first convolution (2x2, no padding, eight filters for each input channel) trains only its
    bias. ``whiten_by`` computes its filters from inputs; until then they have PyTorch's default
    initialization. Each 3x3 convolution starts as the identity on the channels of its input. Batch
    norms learn only a bias and use a momentum of 0.4.

    Args:
        shape: shape of one example, (channels, height, width), at least 9x9 pixels.
        classes: number of logits.

    Example:
        >>> sum(p.numel() for p in FastCNN((3, 32, 32), 10).parameters())
        1972792
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Build the network; unless noted above, with PyTorch's default initialization."""
        super().__init__()
        channels = 2 * shape[0] * 4
        self.whiten = nn.Conv2d(shape[0], channels, 2)
        self.whiten.weight.requires_grad_(False)
        self.block1 = _block(channels, 64)
        self.block2 = _block(64, 256)
        self.block3 = _block(256, 256)
        self.head = nn.Linear(256, classes, bias=False)
        with torch.no_grad():
            self.head.weight /= HEAD * self.head.weight.std()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        x = self.block3(self.block2(self.block1(F.gelu(self.whiten(x)))))
        logits: Tensor = self.head(x.amax((2, 3))) * (HEAD / self.head.in_features)
        return logits

    @torch.no_grad()
    def whiten_by(self, x: Tensor) -> None:
        """Set the first convolution so that half of its channels are whitened on these inputs.

        The first half of its filters are the eigenvectors of the second moments of all 2x2 patches,
        in ascending order of their eigenvalues, each divided by ``sqrt(eigenvalue + 5e-4)``. The
        second half are the negatives of the first. They are computed on the CPU in
        float64, so that the same inputs give the same filters on any device and with any number of
        threads, up to rounding.

        Args:
            x: ``(n, channels, height, width)``, normalized inputs; 5,000 are enough for CIFAR-10.
                Not modified.

        Raises:
            ValueError: if the inputs have a different shape or are not floating point.

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
                f"whiten_by expects normalized inputs of shape (n, {channels}, height, width) with "
                f"at least 2x2 pixels, got shape {tuple(x.shape)} and type {x.dtype}. Pass some of "
                "the training inputs, normalized as in training."
            )
        size, count = 4 * channels, 0
        moments = torch.zeros(size, size, dtype=torch.float64)
        for chunk in x.split(256):
            patches = F.unfold(chunk.cpu().double(), 2).transpose(0, 1).flatten(1)
            moments += patches @ patches.T
            count += patches.shape[1]
        values, vectors = torch.linalg.eigh(moments / count)
        vectors = vectors.T / (values.clamp(min=0) + 5e-4).sqrt()[:, None]
        filters = (vectors * _signs(vectors)).reshape(size, channels, 2, 2)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))


def _signs(vectors: Tensor) -> Tensor:
    """Return the signs that make the first large entry of each row positive.

    An eigenvector may come out with either sign. The largest entry cannot decide: several are often
    equally large up to rounding.
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

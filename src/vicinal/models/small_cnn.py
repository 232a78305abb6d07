"""A small convolutional network for small images."""

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three convolutions of 16, 32 and 32 channels, the second with stride 2, and a linear head.

    Made for images of about 8x8 pixels: for 10 classes of digits it has 19,258 weights, enough to
    memorize 1,257 random labels, and a training step takes milliseconds. A dropout layer of
    probability 0, which ``training.dropout`` sets, precedes the head.

    Args:
        shape: shape of one example, (channels, height, width).
        classes: number of logits.
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Build the network with PyTorch's default initialization."""
        super().__init__()
        self.stage1 = _stage(shape[0], 16, stride=1)
        self.stage2 = _stage(16, 32, stride=2)
        self.stage3 = _stage(32, 32, stride=1)
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * 16, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        features = self.stage3(self.stage2(self.stage1(x)))
        logits: Tensor = self.head(self.dropout(features))
        return logits


def _stage(channels: int, out: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    )

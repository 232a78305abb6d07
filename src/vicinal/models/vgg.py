"""Plain convolutional networks for images and spectrograms."""

from torch import Tensor, nn

from vicinal.models.weights import initialize


class VGG(nn.Module):
    """VGG-11 with batch norm: eight 3x3 convolutions in five stages that end with max pooling.

    Configuration A of Simonyan and Zisserman (https://arxiv.org/abs/1409.1556), except that global
    average pooling and one linear layer replace its three linear layers, so that it takes
    spectrograms of any size from 32x32.

    Args:
        shape: shape of one example, (channels, height, width), at least 32x32 pixels.
        classes: number of logits.

    Example:
        >>> sum(p.numel() for p in VGG((1, 160, 101), 30).parameters())
        9237470
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Build the network, with the initialization of He et al. (arXiv 1502.01852)."""
        super().__init__()
        channels, self.stages = shape[0], nn.Sequential()
        for k, widths in enumerate([(64,), (128,), (256, 256), (512, 512), (512, 512)]):
            stage = nn.Sequential()
            for width in widths:
                stage.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
                stage.extend([nn.BatchNorm2d(width), nn.ReLU()])
                channels = width
            stage.append(nn.MaxPool2d(2))
            self.stages.add_module(f"stage{k + 1}", stage)
        self.head = nn.Linear(channels, classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.stages(x).mean((2, 3)))
        return logits


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling (LeCun et al., 1998), for any size of input.

    Two 5x5 convolutions to 20 and 50 channels, each with pooling, and a hidden layer of 500 units.

    Args:
        shape: shape of one example, (channels, height, width), at least 16x16 pixels.
        classes: number of logits.

    Example:
        >>> sum(p.numel() for p in LeNet((1, 28, 28), 10).parameters())
        431080
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        """Build the network with PyTorch's default initialization."""
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(shape[0], 20, 5), nn.ReLU(), nn.MaxPool2d(2))
        self.stage2 = nn.Sequential(nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2))
        height, width = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(50 * height * width, 500), nn.ReLU())
        self.head = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.hidden(self.stage2(self.stage1(x))))
        return logits

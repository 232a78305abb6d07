"""Inputs with mean zero and std one, as networks want them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.data.dataset import Split
from vicinal.data.input_statistics import statistics


@dataclass(frozen=True, eq=False)
class Normalize:
    """Takes the mean out of each channel and divides by its std.

    Draws nothing; it stands last among the augmentations of a ``Loader``.

    Args:
        mean: ``(channels, 1, 1)`` or ``(features,)`` float32, in units of the inputs.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return no numbers, ``(size, 0)``."""
        return torch.empty(size, 0, dtype=torch.float64)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return inputs as float32; ``x`` is not modified."""
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)

    def to(self, device: torch.device | str) -> "Normalize":
        """Return the same on another device."""
        return Normalize(self.mean.to(device), self.std.to(device))


def normalization_of(split: Split) -> Normalize:
    """Look at a split, which should be the training split, and say how to normalize like it.

    Inputs in memory are counted exactly; of a split in files 10,000 evenly spaced examples are
    read. A channel that is the same everywhere keeps its std.

    Args:
        split: with inputs ``(n, channels, height, width)`` or ``(n, features)``.

    Example:
        >>> x = torch.tensor([[[[0, 4]]]], dtype=torch.uint8)
        >>> by = normalization_of(Split(x, torch.zeros(1)))
        >>> by.mean.item(), by.std.item()
        (2.0, 2.0)
    """
    found = statistics(split)
    shape = (-1, *(1 for _ in range(len(split.inputs.shape) - 2)))
    std = torch.where(found.std > 0, found.std, 1.0)
    return Normalize(found.mean.float().view(shape), std.float().view(shape))

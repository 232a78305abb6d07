"""Inputs with mean zero and deviation one, as networks want them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import Part

_SAMPLE = 10_000


@dataclass(frozen=True, eq=False)
class Standardise:
    """Takes the mean out of each channel and divides by its deviation.

    Draws nothing; it stands last among the augmentations of a ``Loader``.

    Args:
        mean: ``(channels, 1, 1)`` or ``(features,)`` float32, in units of the inputs.
        deviation: likewise.
    """

    mean: Tensor
    deviation: Tensor

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return no numbers, ``(size, 0)``."""
        return torch.empty(size, 0, dtype=torch.float64)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return inputs as float32; ``x`` is not modified."""
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.deviation)

    def to(self, device: torch.device | str) -> "Standardise":
        """Return the same on another device."""
        return Standardise(self.mean.to(device), self.deviation.to(device))


def standardise_by(part: Part) -> Standardise:
    """Look at a part, which should be the training part, and say how to standardise like it.

    Inputs in memory are counted exactly; of a part in files 10,000 evenly spaced examples are
    read. A channel that is the same everywhere keeps its deviation.

    Args:
        part: with inputs ``(n, channels, height, width)`` or ``(n, features)``.

    Example:
        >>> by = standardise_by(Part(torch.tensor([[[[0, 4]]]], dtype=torch.uint8), torch.zeros(1)))
        >>> by.mean.item(), by.deviation.item()
        (2.0, 2.0)
    """
    inputs = part.inputs
    if not isinstance(inputs, Tensor):
        rows = np.unique(np.linspace(0, len(part) - 1, min(_SAMPLE, len(part))).astype(np.int64))
        chunks = np.array_split(rows, max(1, len(rows) // 256))
        inputs = torch.cat([part.read(some.tolist()).inputs for some in chunks])
    if inputs.dtype == torch.uint8:
        mean, deviation = _counted(inputs)
    else:
        others = [d for d in range(inputs.ndim) if d != 1]
        deviation, mean = torch.std_mean(inputs.double(), others, correction=0)
    shape = (-1, *(1 for _ in range(inputs.ndim - 2)))
    deviation = torch.where(deviation > 0, deviation, 1.0)
    return Standardise(mean.float().view(shape), deviation.float().view(shape))


def _counted(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each channel from how often it has each value."""
    levels = torch.arange(256, dtype=torch.float64)
    shares = torch.stack(
        [torch.bincount(inputs[:, k].flatten(), minlength=256) for k in range(inputs.shape[1])]
    ).double()
    shares /= shares.sum(1, keepdim=True)
    mean = shares @ levels
    return mean, (shares * (levels - mean[:, None]).square()).sum(1).sqrt()

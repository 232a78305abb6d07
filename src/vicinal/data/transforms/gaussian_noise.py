"""Gaussian noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.data.transforms.base import check_drawn, check_number


@dataclass(frozen=True)
class GaussianNoise:
    """Add independent Gaussian noise to every value of an example.

    Chapelle et al., "Vicinal Risk Minimization" (2000), the method that mixup generalizes. Unlike
    the other transforms it takes examples of any shape, such as rows of a table.

    Args:
        std: standard deviation, in the units of the values: images of 8 bits go from 0 to 255, and
            their noisy values are clamped to that.

    Raises:
        UserError: if ``std`` is negative or not a number; on use, if values are integers other than
            uint8.

    Example:
        >>> x = torch.tensor([[3, 250]], dtype=torch.uint8)
        >>> GaussianNoise(10.0).apply(x, torch.tensor([[-0.52, 1.0]])).tolist()
        [[0, 255]]
    """

    std: float

    def __post_init__(self) -> None:
        """Check the setting."""
        check_number(self, "std")

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, k)`` standard normal numbers, one for each of the k values."""
        return torch.randn(size, math.prod(shape), dtype=torch.float64, generator=generator)

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Add the noise; see ``Transform.apply``. Inputs may have any shape."""
        check_drawn(self, x, drawn, math.prod(x.shape[1:]))
        working = torch.promote_types(x.dtype, torch.float32)
        noise = drawn.to(x.device, working, non_blocking=True).view(x.shape)
        noisy = x.contiguous() + self.std * noise
        return (
            noisy.clamp(0, 255).round().to(x.dtype) if x.dtype == torch.uint8 else noisy.to(x.dtype)
        )

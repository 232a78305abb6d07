"""Random horizontal flips."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.data.transforms.base import check_batch, check_image, check_number


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Flip images at random, left to right.

    Args:
        p: probability that an image is flipped.

    Raises:
        UserError: if ``p`` is not in ``[0, 1]``.

    Example:
        >>> x = torch.tensor([[1, 2, 3], [1, 2, 3]]).view(2, 1, 1, 3)
        >>> RandomHorizontalFlip().apply(x.byte(), torch.tensor([[0.0], [1.0]])).flatten(1).tolist()
        [[1, 2, 3], [3, 2, 1]]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number(self, "p", high=1)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 1)``: 1 for an image that is flipped, else 0."""
        check_image(self, shape)
        chance = torch.rand(size, 1, dtype=torch.float64, generator=generator)
        return (chance < self.p).double()

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Flip the drawn images; see ``Transform.apply``."""
        check_batch(self, x, drawn, 1)
        flipped = drawn[:, 0].nonzero()[:, 0]
        source = torch.arange(len(x))
        source[flipped] = torch.arange(len(x), len(x) + len(flipped))
        flipped, source = (one.to(x.device, non_blocking=True) for one in (flipped, source))
        x = x.contiguous()
        # torch.cat and index_select copy whole images; index_copy_ copies pixels one by one.
        return torch.cat([x, x.index_select(0, flipped).flip(3)]).index_select(0, source)

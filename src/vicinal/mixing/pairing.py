"""Who meets whom: pairings choose a partner for each row of a batch."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Pairing(Protocol):
    """Anything that answers with a partner for each of ``size`` rows, ``(size,)`` int64."""

    def __call__(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Choose the partners; all chance comes from ``generator``, or torch's own if None."""
        ...


@dataclass(frozen=True)
class Shuffle:
    """Pair each row with the row that a random permutation puts in its place.

    A row may meet itself, once in a batch on average. This is the pairing of Zhang et al.
    (https://arxiv.org/abs/1710.09412), figure 1a, with one loader and a shuffled copy of its batch.

    Example:
        >>> Shuffle()(4, torch.Generator().manual_seed(0)).sort().values.tolist()
        [0, 1, 2, 3]
    """

    def __call__(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Return a uniformly drawn permutation of ``size`` rows."""
        return torch.randperm(size, generator=generator)


@dataclass(frozen=True)
class Reverse:
    """Pair row ``i`` with row ``size - 1 - i``; the middle row of an odd batch meets itself.

    Draws nothing: chance is left to the loader's shuffling. Rows meet in pairs, so that
    ``MixUp(..., per="pair")`` gives both the same lam.

    Example:
        >>> Reverse()(5).tolist()
        [4, 3, 2, 1, 0]
    """

    def __call__(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the row indices from last to first."""
        return torch.arange(size - 1, -1, -1)

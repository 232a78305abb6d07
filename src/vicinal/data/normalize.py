"""Normalization of inputs to mean zero and standard deviation one."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import Split

_SAMPLE = 10_000
_PIECE = 1 << 24  # bytes that are in memory at once
_MOST = 1 << 30  # bytes of a split in files that are read


@dataclass(frozen=True, eq=False)
class Normalize:
    """Subtracts the mean of each channel and divides by its standard deviation.

    A transform without randomness, the last one of a ``Loader``. Inputs of one channel are repeated
    if there are means of several. Tokens, which are int64, are not changed.

    Args:
        mean: ``(channels, 1, 1)`` or ``(features,)`` float32, in units of the inputs.
        std: likewise.

    Example:
        >>> transform = Normalize(mean=torch.tensor([2.0]), std=torch.tensor([4.0]))
        >>> transform.apply(torch.tensor([[6.0], [2.0]]), torch.empty(2, 0)).tolist()
        [[1.0], [0.0]]
    """

    mean: Tensor
    std: Tensor

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return no random numbers, ``(size, 0)``."""
        return torch.empty(size, 0, dtype=torch.float64)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return normalized inputs as float32; ``x`` is not modified."""
        if x.dtype == torch.int64:
            return x
        x = x.expand(torch.broadcast_shapes(x.shape, self.mean.shape))
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.std)

    def to(self, device: torch.device | str) -> "Normalize":
        """Return the same transform on another device."""
        return Normalize(self.mean.to(device), self.std.to(device))


def normalization_of(split: Split, *, together: bool = False) -> Normalize:
    """Return the transform that normalizes by the mean and std of a split, the training split.

    Statistics are exact for inputs in memory; see ``statistics`` for inputs in files. Constant
    channels are not divided. Tokens are not normalized.

    Args:
        split: with inputs ``(n, channels, height, width)`` or ``(n, features)``.
        together: whether all channels or features have one mean and one standard deviation, as
            the samples of a recording should.

    Example:
        >>> x = torch.tensor([[[[0, 4]]]], dtype=torch.uint8)
        >>> transform = normalization_of(Split(x, torch.zeros(1)))
        >>> transform.mean.item(), transform.std.item()
        (2.0, 2.0)
    """
    if split.inputs.dtype == torch.int64:
        return Normalize(torch.zeros(1), torch.ones(1))
    found = statistics(split)
    found = combined(found) if together else found
    shape = (-1, *(1 for _ in range(len(split.inputs.shape) - 2)))
    std = torch.where(found.std > 0, found.std, 1.0)
    return Normalize(found.mean.float().view(shape), std.float().view(shape))


class Statistics(NamedTuple):
    """Statistics of the inputs of a split.

    Args:
        examples: how many examples were read.
        mean: mean of each channel ``(channels,)`` or feature ``(features,)``, in float64.
        std: standard deviation, of the same shape; the sum of squares is divided by the number of
            values, not by one less.
        lowest: the lowest of all values.
        highest: the highest of all values.
    """

    examples: int
    mean: Tensor
    std: Tensor
    lowest: float
    highest: float


def combined(found: Statistics) -> Statistics:
    """Return the statistics of all channels or features together, with one mean and one std.

    Example:
        >>> split = Split(torch.tensor([[0.0, 4.0], [2.0, 6.0]]), torch.zeros(2))
        >>> found = combined(statistics(split))
        >>> found.mean.item(), round(found.std.item() ** 2, 9)
        (3.0, 5.0)
    """
    mean = found.mean.mean()
    std = (found.std.square() + (found.mean - mean).square()).mean().sqrt()
    return found._replace(mean=mean[None], std=std[None])


def statistics(split: Split) -> Statistics:
    """Return statistics of the inputs of a split, or of a sample if the inputs are in files.

    The sample consists of evenly spaced examples, at most 10,000 and at most 1 GiB.

    Args:
        split: a split with inputs ``(n, channels, ...)`` or ``(n, features)``.

    Example:
        >>> found = statistics(Split(torch.tensor([[[0.0, 4.0]]]), torch.zeros(1)))
        >>> found.mean.item(), found.std.item(), found.highest
        (2.0, 2.0, 4.0)
    """
    examples = values = 0
    mean = square = torch.zeros((), dtype=torch.float64)
    low, high = math.inf, -math.inf
    for piece in _pieces(split):
        if not piece.numel():
            continue
        count, new_mean, new_square = _moments(piece)
        # Combine two sums of squares as in Chan, Golub and LeVeque (1983).
        total = values + count
        difference = new_mean - mean
        square = square + new_square + difference.square() * (values * count / total)
        mean = mean + difference * (count / total)
        values = total
        examples += len(piece)
        low, high = min(low, piece.min().item()), max(high, piece.max().item())
    return Statistics(examples, mean, (square / max(values, 1)).sqrt(), low, high)


def _pieces(split: Split) -> Iterator[Tensor]:
    each = max(1, math.prod(split.inputs.shape[1:]) * split.inputs.dtype.itemsize)
    together = max(1, _PIECE // each)
    if isinstance(split.inputs, Tensor):
        yield from split.inputs.split(together)
        return
    most = min(_SAMPLE, len(split), max(1, _MOST // each))
    rows = np.unique(np.linspace(0, len(split) - 1, most).astype(np.int64)).tolist()
    for start in range(0, len(rows), together):
        yield split.read(rows[start : start + together]).inputs


def _moments(piece: Tensor) -> tuple[int, Tensor, Tensor]:
    """Return, per channel, the number of values, their mean, and the sum of squares around it."""
    count = piece.numel() // piece.shape[1]
    if piece.dtype == torch.uint8:
        levels = torch.arange(256, dtype=torch.float64, device=piece.device)
        channels = [piece[:, k].flatten() for k in range(piece.shape[1])]
        counts = torch.stack([torch.bincount(c, minlength=256) for c in channels]).double()
        mean = counts @ levels / count
        return count, mean, (counts * (levels - mean[:, None]).square()).sum(1)
    others = [d for d in range(piece.ndim) if d != 1]
    values = piece.double()
    mean = values.mean(others)
    around = values - mean.view(-1, *(1 for _ in range(piece.ndim - 2)))
    return count, mean, around.square().sum(others)

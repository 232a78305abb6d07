"""Mean, std and range of the inputs of a split, in pieces that fit in memory."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import Split

_SAMPLE = 10_000
_PIECE = 1 << 24  # bytes that are looked at together
_MOST = 1 << 30  # bytes that are read of a split in files


class Statistics(NamedTuple):
    """What ``statistics`` found.

    Args:
        looked_at: how many examples it saw.
        mean: ``(channels,)`` float64, or ``(features,)``.
        std: likewise, dividing by the number of values.
        lowest: of all values.
        highest: of all values.
    """

    looked_at: int
    mean: Tensor
    std: Tensor
    lowest: float
    highest: float


def statistics(split: Split) -> Statistics:
    """Look at the inputs of a split: at all if they are in memory, else at a sample.

    A sample is of evenly spaced examples, at most 10,000 and at most 1 GiB.

    Args:
        split: with inputs ``(n, channels, ...)`` or ``(n, features)``.

    Example:
        >>> found = statistics(Split(torch.tensor([[[0.0, 4.0]]]), torch.zeros(1)))
        >>> found.mean.item(), found.std.item(), found.highest
        (2.0, 2.0, 4.0)
    """
    looked_at = seen = 0
    mean = square = torch.zeros((), dtype=torch.float64)
    low, high = math.inf, -math.inf
    for piece in _pieces(split):
        if not piece.numel():
            continue
        count, new_mean, new_square = _moments(piece)
        # Two sums of squares are joined as Chan, Golub and LeVeque (1983) do it.
        whole = seen + count
        apart = new_mean - mean
        square = square + new_square + apart.square() * (seen * count / whole)
        mean = mean + apart * (count / whole)
        seen = whole
        looked_at += len(piece)
        low, high = min(low, piece.min().item()), max(high, piece.max().item())
    return Statistics(looked_at, mean, (square / max(seen, 1)).sqrt(), low, high)


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
    """Return how many values a channel has, their mean and their sum of squares around it."""
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

"""Measures of samples against a mixture of Gaussians of which everything is known."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

NEAR = 4.0
"""Samples within so many std of the nearest mode are good; 99.97% of the real ones are."""

FAIR = 0.2
"""A mode is found if it has at least this fraction of its fair share of samples, good ones only."""


EDGE = 1.5
"""Figures show samples up to this coordinate; real ones are within 1, and a few std."""


class Coverage(NamedTuple):
    """How samples cover the modes of a mixture.

    Args:
        modes: number of modes that are found.
        good: the share of good samples.
    """

    modes: int
    good: float


def coverage(samples: Tensor, centers: Tensor, std: float) -> Coverage:
    """Return how many modes are found, and the share of good samples.

    A sample is good within ``NEAR`` std of the nearest mode. A mode is found if it has ``FAIR`` of
    the good samples that equal weights would give it, so that samples that are strewn everywhere
    do not find all modes by chance.

    Args:
        samples: ``(samples, 2)``; those that are not finite are not good.
        centers: ``(modes, 2)``.
        std: std of each mode.

    Example:
        >>> centers = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> coverage(torch.tensor([[0.1, 0.0], [0.0, 0.1], [0.5, 0.0]]), centers, std=0.1)
        Coverage(modes=1, good=0.6666666666666666)
    """
    nearest = torch.cdist(samples, centers, compute_mode="donot_use_mm_for_euclid_dist").min(1)
    good = nearest.values <= NEAR * std
    counts = torch.bincount(nearest.indices[good], minlength=len(centers))
    enough = max(FAIR * len(samples) / len(centers), 1)
    return Coverage(int((counts >= enough).sum()), int(good.sum()) / len(samples))


def energy_distance(samples: Tensor, real: Tensor) -> float:
    """Return the energy distance between two samples, in the unit of the data.

    ``sqrt(2 E|x - y| - E|x - x'| - E|y - y'|)`` over all pairs, as ``scipy.stats.energy_distance``
    defines it in one dimension (Szekely and Rizzo, 2013). It is 0 for equal samples only; for two
    samples of one distribution it is small, but not 0.

    Args:
        samples: ``(n, dimensions)``.
        real: ``(m, dimensions)``.

    Returns:
        NaN if a sample is not finite.

    Example:
        >>> energy_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[2.0]]))
        2.0
    """
    x, y = samples.double(), real.double()
    squared = 2 * _mean_distance(x, y) - _mean_distance(x, x) - _mean_distance(y, y)
    return math.sqrt(max(squared, 0.0)) if math.isfinite(squared) else math.nan


def _mean_distance(x: Tensor, y: Tensor) -> float:
    # The fast formula loses the small distances within a mode.
    return float(torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean())


def divergence(samples: Tensor, std: float) -> str:
    """Return how samples show that a GAN has diverged, or ``""``.

    They are not finite; nearly one point, so that they spread less than half of one mode; or have
    left the data: most of them are farther than ``EDGE`` from the origin along an axis.

    Args:
        samples: ``(samples, 2)``.
        std: std of each mode.

    Example:
        >>> divergence(torch.ones(5, 2), std=0.01), divergence(torch.eye(2), std=0.01)
        ('one point', '')
    """
    if not bool(samples.isfinite().all()):
        return "not finite"
    if float(samples.std(0).max()) < std / 2:
        return "one point"
    outside = float((samples.abs().amax(1) > EDGE).double().mean())
    return f"{outside:.0%} of the samples far from the data" if outside > 0.5 else ""

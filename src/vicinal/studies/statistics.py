"""Statistics over seeds: means, paired differences and verdicts."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

Verdict = Literal["better", "worse", "no evidence", "withheld"]


class Estimate(NamedTuple):
    """A mean with its 95% interval, which is None if there is only one value."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: Sequence[float], *, step: float) -> Estimate:
    """Return the mean of measurements with its 95% interval, by Student's t.

    The interval covers the randomness of training (weights, order, mixing), not that of the test
    examples, which are the same for every seed.

    Accuracies are multiples of one test example. If all seeds have the same accuracy, their
    standard deviation is 0, which is too optimistic; so it is at least that of rounding to such
    steps, ``step / sqrt(12)`` (Sheppard's correction, reversed).

    Args:
        values: one measurement for each seed.
        step: the resolution of a measurement.

    Example:
        >>> estimate([1.0, 2.0, 3.0], step=0.0)
        Estimate(mean=2.0, low=-0.484137711..., high=4.484137711...)
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Estimate(mean, None, None)
    spread = max(float(np.std(values, ddof=1)), step / math.sqrt(12))
    half = float(stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, step: float
) -> Estimate:
    """Return the mean paired difference to a baseline, with its 95% interval.

    Args:
        values: one measurement for each seed.
        baseline: the measurements of the baseline with the same seeds, in the same order.
        step: as for ``estimate``; a difference of two rounded values has twice the variance.
    """
    differences = np.subtract(values, baseline).tolist()
    return estimate(differences, step=step * math.sqrt(2))


def verdict(difference: Estimate) -> Verdict:
    """Return the verdict on a difference, whose interval has to exclude zero.

    Example:
        >>> verdict(Estimate(2.0, 0.5, 3.5)), verdict(Estimate(2.0, None, None))
        ('better', 'no evidence')
    """
    if difference.low is not None and difference.low > 0:
        return "better"
    if difference.high is not None and difference.high < 0:
        return "worse"
    return "no evidence"

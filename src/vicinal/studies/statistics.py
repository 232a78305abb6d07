"""Statistics over seeds: means, paired differences, and what may be said of them."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

Verdict = Literal["better", "worse", "no evidence", "withheld"]


class Estimate(NamedTuple):
    """A mean with its 95 % interval; the interval is None where one value is all there is."""

    mean: float
    low: float | None
    high: float | None


def estimate(values: Sequence[float], *, step: float) -> Estimate:
    """Return the mean of measurements with its 95 % interval, by Student's t.

    The interval covers the chance of training (weights, order, mixing); not that of the choice
    of test examples, which are the same for every seed.

    Accuracies come in steps: one test example more or less. When all seeds land on the same step
    their spread is 0, which knows more than was measured; so it is never taken for less than what
    rounding to such steps alone would cause, ``step / sqrt(12)`` (Sheppard's correction, reversed).

    Args:
        values: one measurement a seed.
        step: smallest difference that one measurement can show.

    Example:
        >>> estimate([1.0, 2.0, 3.0], step=0.0)
        Estimate(mean=2.0, low=-0.484137711..., high=4.484137711...)
    """
    mean = float(np.mean(values))
    count = len(values)
    if count < 2:
        return Estimate(mean, None, None)
    spread = max(float(np.std(values, ddof=1)), step / math.sqrt(12))
    half = float(stats.t.ppf(0.975, count - 1)) * spread / math.sqrt(count)
    return Estimate(mean, mean - half, mean + half)


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], *, step: float
) -> Estimate:
    """Return the mean difference to a baseline, seed by seed, with its 95 % interval.

    Args:
        values: one measurement a seed.
        baseline: the same seeds' measurements of the baseline, in the same order.
        step: as for ``estimate``; a difference of two rounded values has twice the variance.
    """
    differences = np.subtract(values, baseline).tolist()
    return estimate(differences, step=step * math.sqrt(2))


def verdict(difference: Estimate) -> Verdict:
    """Say what a difference allows to be said: its interval has to exclude zero.

    Example:
        >>> verdict(Estimate(2.0, 0.5, 3.5)), verdict(Estimate(2.0, None, None))
        ('better', 'no evidence')
    """
    if difference.low is not None and difference.low > 0:
        return "better"
    if difference.high is not None and difference.high < 0:
        return "worse"
    return "no evidence"

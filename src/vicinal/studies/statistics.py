"""Intervals that cover seeds and test examples, and verdicts; docs/statistics.md explains them."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtri, stdtr, stdtrit

Array = NDArray[Any]
Verdict = Literal["better", "worse", "the same", "no evidence", "withheld"]

LEVEL, POWER = 0.95, 0.8
"""Of intervals, and of the smallest detectable difference."""

_NORMAL = 1e9
"""Degrees of freedom with which Student's t distribution is the normal distribution."""


class Estimate(NamedTuple):
    """A mean over seeds and test examples, with its 95% interval.

    All but the mean are None with one seed and one split, or with fewer than two test examples.

    Args:
        mean: the estimate.
        low: lower end of the interval.
        high: upper end.
        seeds: half the width of the interval that covers other seeds only; in a study with several
            splits, other splits only.
        examples: half the width of the interval that covers other test examples only.
        p: two-sided p-value of the mean being zero.
        detectable: the smallest true value that such a study finds with a probability of 80%, in
            spite of its number of comparisons.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: float | None = None
    examples: float | None = None
    p: float | None = None
    detectable: float | None = None


class _Components(NamedTuple):
    """Variances of a table ``(seeds, examples)``: of seeds, of examples, and of the rest."""

    seeds: float
    examples: float
    rest: float

    def error(self, seeds: float, examples: float) -> tuple[float, float]:
        """Return the standard error of the mean, and its degrees of freedom (Satterthwaite).

        A negative estimate of the variance of the seeds is set to zero, so that the error is not
        smaller than that of the examples alone.
        """
        row = examples * self.seeds + self.rest  # expected mean squares
        column = seeds * self.examples + self.rest
        if self.seeds <= 0:
            # Rounding can make a mean square of zero negative.
            return math.sqrt(max(column, 0.0) / (seeds * examples)), examples - 1
        variance = row + column - self.rest
        below = row**2 / (seeds - 1) + column**2 / (examples - 1)
        below += self.rest**2 / ((seeds - 1) * (examples - 1))
        freedom = max(variance**2 / below, seeds - 1)
        return math.sqrt(variance / (seeds * examples)), freedom

    def seed_error(self, seeds: float, examples: float) -> float:
        """Return the standard error of the mean over other seeds, with the same examples."""
        return math.sqrt(max(self.seeds + self.rest / examples, 0.0) / seeds)

    def detectable(self, seeds: float, examples: float, *, least: float, comparisons: int) -> float:
        """Return the smallest true mean that is found with enough power, in other such studies.

        Estimates of variances can be negative; variances are at least zero.
        """
        all_at_least_zero = _Components(*(max(one, 0.0) for one in self))
        error = all_at_least_zero.error(seeds, examples)
        by_seed = all_at_least_zero.seed_error(seeds, examples)
        return _detectable([error, (by_seed, seeds - 1)], least, comparisons)


def mean_with_interval(values: Array, *, counted: bool = False, least: float = 0.0) -> Estimate:
    """Return the mean of one arm, with an interval over seeds and test examples.

    Args:
        values: ``(seeds, examples)``; ``vicinal.training.metrics.metric_values`` returns a row.
        counted: whether each value is 0 or 1. Two correct and two wrong examples are then added for
            the interval, as Agresti and Coull (1998) suggest, so that it is not too narrow near 0
            and 1.
        least: the smallest half width, unless ``counted``; see
            ``vicinal.training.metrics.least_difference``.

    Example:
        >>> perfect = mean_with_interval(np.ones((3, 96)), counted=True)
        >>> perfect.mean, round(perfect.low, 3), perfect.high
        (1.0, 0.952, 1.0)
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if not counted:
        return _two_way(values, least=least)
    added = np.broadcast_to([1.0, 1.0, 0.0, 0.0], (len(values), 4))
    wide = _two_way(np.concatenate([values, added], axis=1))
    if wide.low is None or wide.high is None:
        return Estimate(mean)
    return wide._replace(mean=mean, low=max(wide.low, 0.0), high=min(wide.high, 1.0))


def difference_with_interval(
    values: Array, baseline: Array, *, least: float = 0.0, comparisons: int = 1
) -> Estimate:
    """Return the mean difference of two arms, paired by seed and by example.

    Args:
        values: ``(seeds, examples)`` of an arm.
        baseline: those of the baseline, for the same seeds and examples.
        least: the smallest half width, which matters most if the arms hardly differ; see
            ``vicinal.training.metrics.least_difference``.
        comparisons: the number of comparisons that p-values are adjusted for.

    Example:
        >>> arm = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
        >>> found = difference_with_interval(arm, arm - [[0.5], [0.25]])
        >>> found.mean, round(found.low, 2), round(found.high, 2)
        (0.375, -1.21, 1.96)
    """
    difference = np.asarray(values, dtype=float) - np.asarray(baseline, dtype=float)
    return _two_way(difference, least=least, comparisons=comparisons)


def difference_between_studies(values: Array, others: Array, *, least: float = 0.0) -> Estimate:
    """Return the mean difference of two arms whose examples are paired and whose seeds are not.

    Args:
        values: ``(seeds, examples)`` of an arm.
        others: ``(other seeds, examples)`` of the arm that is subtracted.
        least: as for ``difference_with_interval``.

    Example:
        >>> arm = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
        >>> found = difference_between_studies(arm, arm[:, ::-1])
        >>> found.mean, round(found.high, 2)
        (0.0, 0.92)
    """
    apart = values.mean(0) - others.mean(0)
    mean, examples = float(apart.mean()), len(apart)
    if min(len(values), len(others), examples) < 2:
        return Estimate(mean)
    by_example = float(apart.var(ddof=1)) / examples
    both = [(len(one), _components(one)) for one in (values, others)]
    over_all = [(by_example, examples - 1)]
    over_all += [(max(one.seeds, 0.0) / seeds, seeds - 1) for seeds, one in both]
    over_seeds = [(one.seed_error(seeds, examples) ** 2, seeds - 1) for seeds, one in both]
    (error, freedom), (by_seed, few) = _summed(over_all), _summed(over_seeds)
    half = max(_quantile(freedom) * error, _quantile(few) * by_seed, least)
    return Estimate(mean, mean - half, mean + half)


def _summed(variances: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum, and its degrees of freedom (Satterthwaite)."""
    total = sum(variance for variance, _ in variances)
    below = sum(variance**2 / freedom for variance, freedom in variances)
    return math.sqrt(total), total**2 / below if below else min(one for _, one in variances)


def _components(values: Array) -> _Components:
    """Estimate the variances of a table by analysis of variance, without interaction."""
    seeds, examples = values.shape
    mean = values.mean()
    by_seed, by_example = values.mean(1) - mean, values.mean(0) - mean
    rows = examples * np.square(by_seed).sum() / (seeds - 1)
    columns = seeds * np.square(by_example).sum() / (examples - 1)
    left = values - mean - by_seed[:, None] - by_example
    rest = np.square(left).sum() / ((seeds - 1) * (examples - 1))
    return _Components((rows - rest) / examples, (columns - rest) / seeds, rest)


def _two_way(values: Array, *, least: float = 0.0, comparisons: int = 1) -> Estimate:
    """Return the mean of a table, with an interval over both of its dimensions.

    Seeds and examples are crossed random effects. The half width is the larger of two: Student's t
    with the variance of both effects and Satterthwaite's degrees of freedom, and Student's t over
    the seeds, which is exact if the seeds decide. Simulations chose this (docs/statistics.md).
    """
    mean = float(values.mean())
    seeds, examples = values.shape
    if seeds < 2 or examples < 2:
        return Estimate(mean)
    found = _components(values)
    by_seed = found.seed_error(seeds, examples)
    by_example = math.sqrt(max(found.examples + found.rest / seeds, 0.0) / examples)
    errors = [found.error(seeds, examples), (by_seed, seeds - 1)]
    return _estimate(mean, errors, least, comparisons)._replace(
        seeds=_quantile(seeds - 1) * by_seed,
        examples=_quantile(examples - 1) * by_example,
        detectable=found.detectable(seeds, examples, least=least, comparisons=comparisons),
    )


def _estimate(
    mean: float, errors: Sequence[tuple[float, float]], least: float, comparisons: int
) -> Estimate:
    """Return an estimate with the widest interval of several, and of a smallest half width.

    Args:
        mean: the mean.
        errors: standard errors of the mean, with their degrees of freedom.
        least: the smallest half width.
        comparisons: the number of comparisons that p-values are adjusted for.
    """
    half = max(*(_quantile(freedom) * error for error, freedom in errors), least)
    p_values = [_p_value(mean, error, freedom) for error, freedom in errors]
    p_values += [_p_value(mean, least / _quantile(_NORMAL), _NORMAL)] if least else []
    detectable = _detectable(errors, least, comparisons)
    return Estimate(mean, mean - half, mean + half, p=max(p_values), detectable=detectable)


def _detectable(errors: Sequence[tuple[float, float]], least: float, comparisons: int) -> float:
    """Return the smallest true mean that is found with enough power."""
    return max(
        *(error * _enough(freedom, comparisons) for error, freedom in errors),
        least * _enough_of_three(comparisons),
    )


def over_splits(
    tables: Sequence[Array], *, ratio: float, least: float = 0.0, comparisons: int = 1
) -> Estimate:
    """Return the mean over splits of the data, whose training sets overlap.

    Nadeau and Bengio, "Inference for the Generalization Error" (2003), section 3: the variance of
    the mean of ``k`` splits is taken as ``1 / k + ratio`` times that of one. If the splits agree by
    chance, the test examples still make the mean uncertain: the interval is at least as wide as one
    over all of them.

    Args:
        tables: ``(seeds, examples)`` of each split.
        ratio: test examples per training example.
        least: the smallest half width.
        comparisons: the number of comparisons that p-values are adjusted for.

    Example:
        >>> found = over_splits([np.full((1, 9), mean) for mean in (0.1, 0.2, 0.3)], ratio=0.25)
        >>> round(found.mean, 3), round(found.high - found.mean, 3)
        (0.2, 0.329)
    """
    means, count = [float(table.mean()) for table in tables], len(tables)
    mean = float(np.mean(means))
    if count < 2 or min(table.shape[1] for table in tables) < 2:
        return Estimate(mean)
    error = math.sqrt((1 / count + ratio) * float(np.var(means, ddof=1)))
    variances = [table.mean(0).var(ddof=1) / table.shape[1] for table in tables]
    by_example = math.sqrt(float(np.sum(variances))) / count
    freedom = sum(table.shape[1] for table in tables) - count
    errors = [(error, count - 1), (by_example, freedom)]
    return _estimate(mean, errors, least, comparisons)._replace(
        seeds=_quantile(count - 1) * error, examples=_quantile(freedom) * by_example
    )


def _quantile(freedom: float, comparisons: int = 1) -> float:
    return float(stdtrit(freedom, 1 - (1 - LEVEL) / 2 / comparisons))


def _enough(freedom: float, comparisons: int) -> float:
    """Return how many standard errors a true value needs to be found with enough power."""
    return _quantile(freedom, comparisons) + float(stdtrit(freedom, POWER))


def _enough_of_three(comparisons: int) -> float:
    """Return how many times three examples have to differ on average, to be found as often.

    The smallest half width is what three examples can change. If arms differ on ``k`` examples, all
    in one direction, the standard error is that of ``sqrt(k)`` examples, so ``k`` has to be above
    the square of the normal quantile. It has a Poisson distribution.
    """
    needed = math.floor(ndtri(1 - (1 - LEVEL) / 2 / comparisons) ** 2) + 1
    return float(gammaincinv(needed, POWER)) / 3


def _p_value(mean: float, error: float, freedom: float) -> float:
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several comparisons (Holm, 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return [float(value) for value in adjusted]


def verdict(
    difference: Estimate, *, p: float | None, margin: float | None, higher: bool
) -> Verdict:
    """Return the verdict on a difference from the baseline.

    Args:
        difference: with its interval.
        p: adjusted for all comparisons of the study; None if there is no interval.
        margin: differences below it do not matter in practice; None if that is unknown.
        higher: whether a higher metric is better.

    Example:
        >>> verdict(Estimate(2.0, 0.5, 3.5), p=0.02, margin=None, higher=True)
        'better'
        >>> verdict(Estimate(0.1, -0.2, 0.4), p=0.6, margin=0.5, higher=True)
        'the same'
    """
    if p is None or difference.low is None or difference.high is None:
        return "no evidence"
    if margin is not None and -margin < difference.low and difference.high < margin:
        return "the same"
    if p < 1 - LEVEL:
        return "better" if (difference.mean > 0) == higher else "worse"
    return "no evidence"


def to_halve(
    values: Array, *, least: float = 0.0, comparisons: int = 1
) -> tuple[int | None, int | None]:
    """Return how many seeds, or how many test examples, halve the smallest detectable difference.

    Args:
        values: differences ``(seeds, examples)``, with two or more of each.
        least: the floor of the half width with this number of examples, as in
            ``difference_with_interval``. Seeds do not lower it.
        comparisons: the number of comparisons that p-values are adjusted for.

    Returns:
        Seeds and examples; None where even 64 times as many do not suffice, or if there is nothing
        to halve.

    Example:
        >>> seeds, examples = np.array([[1.0], [0.9], [1.1]]), np.zeros((1, 500))
        >>> to_halve(seeds + examples)
        (6, None)
    """
    seeds, examples = values.shape
    found = _components(values)

    def detectable(seeds: int, examples: int) -> float:
        floor = least * values.shape[1] / examples
        return found.detectable(seeds, examples, least=floor, comparisons=comparisons)

    goal = detectable(seeds, examples) / 2
    if not goal:
        return None, None

    def fewest(start: int, reached: Callable[[int], float]) -> int | None:
        counts = dict.fromkeys(math.ceil(start * 2 ** (k / 16)) for k in range(16 * 6 + 1))
        return next((count for count in counts if reached(count) <= goal), None)

    return (
        fewest(seeds, lambda count: detectable(count, examples)),
        fewest(examples, lambda count: detectable(seeds, count)),
    )

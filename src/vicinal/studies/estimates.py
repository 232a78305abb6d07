"""Means of values per example over seeds and splits, and differences from the baseline."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from vicinal.studies.statistics import (
    Estimate,
    difference_between_studies,
    difference_with_interval,
    mean_with_interval,
    over_splits,
)
from vicinal.training.metrics import Metric

Cell = tuple[str, float]
"""An arm, and a fraction of corrupted labels."""

Values = list[dict[Cell, dict[int, NDArray[Any]]]]
"""One value per test example: a dictionary for each split, by cell and then by seed."""


def pairs_of(values: Values, cell: Cell, base: Cell) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return the values of an arm and of the baseline for their common seeds, for each split.

    Each is ``(seeds, examples)``. Empty for the baseline itself.
    """
    pairs = []
    for split in values if cell != base else ():
        own, other = split.get(cell, {}), split.get(base, {})
        if both := sorted(own.keys() & other.keys()):
            pairs.append((np.stack([own[k] for k in both]), np.stack([other[k] for k in both])))
    return pairs


def estimated(
    values: Values,
    cell: Cell,
    base: Cell,
    metric: Metric,
    *,
    ratio: float,
    leasts: Sequence[float],
    comparisons: int = 1,
) -> dict[str, Any]:
    """Return a metric of one arm and its difference from the baseline, with intervals, for JSON.

    Args:
        values: one value per test example, whose mean is the metric.
        cell: the arm and its condition.
        base: the baseline under the same condition.
        metric: the metric that has its unit and direction.
        ratio: test examples per training example.
        leasts: the smallest half width of each split of ``values``; see
            ``vicinal.training.metrics.least_difference``.
        comparisons: the number of comparisons that p-values are adjusted for.
    """
    found = [(one, split) for one, split in zip(leasts, values, strict=True) if cell in split]
    tables = [np.stack(list(split[cell].values())) for _, split in found]
    paired = [(one, pair) for one, split in found for pair in pairs_of([split], cell, base)]
    pairs = [pair for _, pair in paired]
    mean, difference = Estimate(math.nan), None
    # With several labels, an example can be partly right, so the binomial interval does not apply.
    counted = metric.counted and all(np.isin(table, (0, 1)).all() for table in tables)
    least = _floor(metric, [one for one, _ in found], 4, tables)
    by_log_odds = metric.percent and not counted
    first = 0.0 if by_log_odds else least
    floor = floor_of_difference(metric, [one for one, _ in paired], pairs)
    if not tables:
        pass
    elif len(values) > 1:
        mean = over_splits(tables, ratio=ratio, least=first)
        if pairs:
            apart = [own - other for own, other in pairs]
            difference = over_splits(apart, ratio=ratio, least=floor, comparisons=comparisons)
    else:
        mean = mean_with_interval(tables[0], counted=counted, least=first)
        if pairs:
            difference = difference_with_interval(*pairs[0], least=floor, comparisons=comparisons)
    if by_log_odds:
        mean = _by_log_odds(mean, least)
    mean = _within(mean, metric.lowest, metric.highest)
    if difference is not None:
        most = metric.highest - metric.lowest
        difference = _within(difference, -most, most)
    return _as_json(mean, metric) | {
        "difference": None
        if difference is None
        else _as_json(difference, metric)
        | {
            "p": difference.p if math.isfinite(difference.mean) else None,
            "detectable": scaled(metric, difference.detectable),
        }
    }


def estimated_between(
    tables: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    metric: Metric,
    *,
    ratio: float,
    leasts: Sequence[float],
) -> dict[str, Any]:
    """Return the difference of an arm between two studies, with its interval, for JSON.

    Args:
        tables: values of the arm in one study and in the other, ``(seeds, examples)`` each, for
            each split.
        metric: as for ``estimated``.
        ratio: likewise.
        leasts: likewise.
    """
    least = floor_of_difference(metric, leasts, tables)
    if len(tables) > 1:
        apart = [(own.mean(0) - other.mean(0))[None] for own, other in tables]
        found = over_splits(apart, ratio=ratio, least=least)
    else:
        found = difference_between_studies(*tables[0], least=least)
    most = metric.highest - metric.lowest
    return _as_json(_within(found, -most, most), metric)


def floor_of_difference(
    metric: Metric,
    leasts: Sequence[float],
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]],
) -> float:
    """Return the smallest half width of the interval of a difference.

    Args:
        metric: the metric.
        leasts: by how much three examples can change it, for each split.
        pairs: values of an arm and of the baseline, as ``pairs_of`` returns them.
    """
    return _floor(metric, leasts, 3, *([pair[k] for pair in pairs] for k in (0, 1)))


def _floor(
    metric: Metric, leasts: Sequence[float], factor: float, *arms: Sequence[NDArray[Any]]
) -> float:
    """Return the smallest half width of an interval.

    For a share of examples that are right, it is what three examples can change. Other fractions
    are measured by values that show how much an example matters: it is what ``factor`` more
    examples like the most extreme one would change, at most as much as three examples can.
    """
    floors = []
    for least, *tables in zip(leasts, *arms, strict=True):
        deviations = [np.abs(one.mean(0) - one.mean()).max() / one.shape[1] for one in tables]
        extreme = factor * max(deviations, default=0.0)
        partly = any(not np.isin(one, (0, 1)).all() for one in tables)
        use = metric.shares or (metric.counted and not partly)
        use = use or not metric.percent or not 1e-12 < extreme < least
        floors.append(least if use else extreme)
    return float(np.mean(floors)) / len(floors) if floors else 0.0


def _by_log_odds(found: Estimate, least: float) -> Estimate:
    """Return an estimate of a fraction with an interval that is symmetric in its log-odds.

    Near 0 and 1, where values are skewed, it covers the truth more often (docs/statistics.md).
    Converted back from this scale, half widths can become larger: the interval extends at most
    three half widths, or twice the smallest half width ``least``, from the estimate.
    """
    if found.low is None or found.high is None:
        return found
    mean, half = found.mean, (found.high - found.low) / 2
    if not 0 < mean < 1:
        return found._replace(low=mean - max(half, least), high=mean + max(half, least))
    steps = max(half, least) / (mean * (1 - mean)) * np.array([-1, 1])
    limit = max(3 * half, 2 * least)
    low, high = mean + (expit(logit(mean) + steps) - mean).clip(-limit, limit)
    return found._replace(low=float(low), high=float(high))


def _within(found: Estimate, lowest: float, highest: float) -> Estimate:
    """Return an estimate whose interval has no values that are impossible."""
    if found.low is None or found.high is None:
        return found
    return found._replace(low=max(found.low, lowest), high=min(found.high, highest))


def _as_json(found: Estimate, metric: Metric) -> dict[str, Any]:
    names = ("value", "low", "high", "seeds", "examples")
    return {name: scaled(metric, one) for name, one in zip(names, found, strict=False)}


def scaled(metric: Metric, value: float | None) -> float | None:
    """Return a value of a metric in the units of the tables, rounded; None if it is undefined."""
    if value is None or not math.isfinite(value):
        return None
    return round(100 * value, 4) if metric.percent else float(f"{value:.6g}")

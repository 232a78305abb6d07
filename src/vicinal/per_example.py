"""Measures of logits and scores, each as one value per example whose mean is the measure.

For means, such as the NLL, the values are what each example adds. For other measures, such as
AUROC, they are the measure plus the example's influence on it: the first derivative by the weight
of the example (Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", 1982, chapter 6).

Needs NumPy only, so that probes work without SciPy.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BINS = 15
"""Of the calibration error, as in Guo et al. (https://arxiv.org/abs/1706.04599)."""

Z = 1.959964
"""The 97.5% quantile of the normal distribution, for 95% intervals."""


def log_probabilities(logits: Array) -> Array:
    """Return the logarithm of the softmax of each row, in float64.

    A logit of minus infinity is a class that is impossible.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def one_hot(logits: Array, classes: Array) -> Array:
    """Return ``(n, k)`` float64 with a one in the column of each row's class."""
    return np.eye(logits.shape[1])[classes]


def correct(logits: Array, classes: Array) -> Array:
    """Return 1 where the largest logit, the first of equal ones, is that of the class, else 0."""
    return (logits.argmax(1) == classes).astype(np.float64)


def nll(logits: Array, classes: Array) -> Array:
    """Return minus the log-probability of each class, in nats."""
    return -np.take_along_axis(log_probabilities(logits), classes[:, None], 1)[:, 0]


def brier(logits: Array, classes: Array) -> Array:
    """Return the squared error of the probabilities, summed over classes."""
    errors = np.exp(log_probabilities(logits)) - one_hot(logits, classes)
    return np.square(errors).sum(1)


def ece(logits: Array, classes: Array) -> Array:
    """Return values of the expected calibration error, over bins of equally many examples.

    The error is the absolute difference of confidence (the largest probability) and accuracy in a
    bin, averaged over bins. Bins are those of ``equal_mass_bins``, of the confidence.

    Example:
        >>> logits = np.log([[0.75, 0.25], [0.75, 0.25]])
        >>> round(float(ece(logits, np.array([0, 1])).mean()), 9)
        0.25
    """
    return calibration_error(np.exp(log_probabilities(logits)).max(1), correct(logits, classes))


def calibration_error(confidence: Array, right: Array) -> Array:
    """Return the values of ``ece`` for the arguments of ``reliability``."""
    bins = equal_mass_bins(confidence)
    gap = confidence - right
    return np.sign(np.bincount(bins, gap, BINS))[bins] * gap


def equal_mass_bins(values: Array) -> Array:
    """Return the bin, from 0 to ``BINS - 1``, of each value; all bins have about equally many.

    Equal values share a bin, so that the bins do not depend on the order of the examples. If there
    are fewer values than bins, or many that are equal, some bins are empty.

    Example:
        >>> equal_mass_bins(np.linspace(0, 1, 30))[:5].tolist()
        [0, 0, 1, 1, 2]
        >>> equal_mass_bins(np.array([0.5, 0.5, 0.5])).tolist()
        [7, 7, 7]
    """
    return ((_ranks(values) - 0.5) * BINS / len(values)).astype(int)


def reliability(confidence: Array, right: Array) -> tuple[Array, Array, Array]:
    """Return how often predictions are right, by their probability.

    Args:
        confidence: ``(n,)`` probabilities of predictions.
        right: ``(n,)``, 1 where the prediction is right, and 0 elsewhere.

    Returns:
        For each of the ``equal_mass_bins`` that is not empty: the mean probability, the share that
        is right, and the number of predictions.
    """
    bins = equal_mass_bins(confidence)
    count = np.bincount(bins, minlength=BINS)
    some = count > 0
    given, share = (np.bincount(bins, one, BINS)[some] for one in (confidence, right))
    return given / count[some], share / count[some], count[some]


def wilson(share: Array, count: Array | int) -> tuple[Array, Array]:
    """Return the ends of the 95% interval of Wilson (1927) of a share.

    The interval has all shares from which it differs by at most ``Z`` of their standard errors.

    Example:
        >>> low, high = wilson(np.array(0.5), 4)
        >>> round(float(low), 2), round(float(high), 2)
        (0.15, 0.85)
    """
    square = Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = np.sqrt(square * (share * (1 - share) + square / (4 * count)) / count)
    half /= 1 + square / count
    return middle - half, middle + half


def auroc(score: Array, positive: Array) -> Array:
    """Return DeLong's placements, scaled so that their mean is the area under the ROC curve.

    Args:
        score: ``(n,)``, higher for positives.
        positive: ``(n,)`` bool, both of which occur.

    Example:
        >>> score, positive = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]) > 0
        >>> float(auroc(score, positive).mean())
        0.75
    """
    n, n1 = len(score), int(positive.sum())
    rank, below = _ranks(score), np.empty(n)
    for side, others in ((positive, n - n1), (~positive, n1)):
        below[side] = (rank[side] - _ranks(score[side])) / others  # share of the other side below
    placement = np.where(positive, below, 1 - below)
    area = placement[positive].mean()
    share = np.where(positive, n1, n - n1) / n
    return area + (placement - area) / share


def _ranks(values: Array) -> Array:
    """Return ranks from 1, the mean of those that equal values share.

    ``scipy.stats.rankdata`` does the same, but takes a second to import.
    """
    _, level, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[level]

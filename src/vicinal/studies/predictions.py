"""What the outputs of trials say beyond metrics: confusions, calibration, and disagreements."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from vicinal import per_example
from vicinal.training.trial_result import Outputs

Array = NDArray[Any]

DIFFERING = 6
"""How many test examples are shown on which an arm is better than the baseline, or worse."""


def probabilities(outputs: Outputs, task: str) -> Array:
    """Return ``(n, k)`` probabilities of classes or labels; real values as they are."""
    if task == "regression":
        return outputs.last.astype(np.float64)
    wide = outputs.last.astype(np.float64)
    return softmax(wide, 1) if task == "classification" else expit(wide)


def confusion(seeds: Sequence[Outputs]) -> Array:
    """Return the share of each class that is predicted as each other, the mean over seeds.

    Args:
        seeds: outputs for the same test examples.

    Returns:
        ``(classes, classes)`` float64: true classes in rows, which sum to one; NaN in the rows of
        classes without test examples.

    Example:
        >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
        >>> confusion([Outputs(logits, None, np.array([0, 0, 1]))])
        array([[0.5, 0.5],
               [1. , 0. ]])
    """
    classes = seeds[0].last.shape[1]
    counts = np.zeros((classes, classes))
    for one in seeds:
        np.add.at(counts, (one.targets, one.last.argmax(1)), 1)
    sums = counts.sum(1, keepdims=True)
    return counts / np.where(sums > 0, sums, np.nan)


def reliability(seeds: Sequence[Outputs], task: str) -> tuple[Array, Array, Array]:
    """Return how often predictions are right, by their probability, pooled over seeds.

    Of classes, these are the predicted ones; of labels, all of them.

    Returns:
        For each bin: the mean probability, the share that is right, and the number of predictions,
        about the same in all bins; see ``vicinal.per_example.reliability``.
    """
    given, right = [], []
    for one in seeds:
        chances = probabilities(one, task)
        if task == "classification":
            given.append(chances.max(1))
            right.append(chances.argmax(1) == one.targets)
        else:
            given.append(chances.ravel())
            right.append((one.targets > 0).ravel())
    return per_example.reliability(np.concatenate(given), np.concatenate(right).astype(np.float64))


def successes(seeds: Sequence[Outputs], task: str) -> Array:
    """Return how good the predictions for each example are, ``(n,)``, the mean over seeds.

    This is the probability of the true class, the mean probability of what is true of the labels,
    or minus the absolute error, the mean over outputs.

    Example:
        >>> logits = np.log([[0.75, 0.25], [0.5, 0.5]])
        >>> successes([Outputs(logits, None, np.array([1, 0]))], "classification")
        array([0.25, 0.5 ])
    """
    found = []
    for one in seeds:
        given = probabilities(one, task)
        if task == "classification":
            found.append(np.take_along_axis(given, one.targets[:, None], 1)[:, 0])
        elif task == "multi-label":
            found.append(np.where(one.targets > 0, given, 1 - given).mean(1))
        else:
            found.append(-np.abs(given - one.targets.reshape(given.shape)).mean(1))
    mean: Array = np.mean(found, axis=0)
    return mean


def disagreements(
    baseline: Sequence[Outputs], arm: Sequence[Outputs], task: str
) -> tuple[list[int], list[int]]:
    """Return the test examples on which an arm differs most from the baseline.

    Args:
        baseline: outputs of each seed.
        arm: likewise.
        task: what is predicted.

    Returns:
        At most ``DIFFERING`` rows on which the arm is better, and as many on which the baseline is,
        the largest difference of ``successes`` first.
    """
    change = successes(arm, task) - successes(baseline, task)
    order = np.argsort(change, kind="stable")
    better = [int(row) for row in order[::-1][:DIFFERING] if change[row] > 0]
    return better, [int(row) for row in order[:DIFFERING] if change[row] < 0]


def fingerprint(baseline: Sequence[Outputs], arm: Sequence[Outputs]) -> str:
    """Return a hash of the outputs that ``disagreements`` compares.

    Example:
        >>> one = Outputs(np.zeros((2, 2)), None, np.array([0, 1]))
        >>> fingerprint([one], [one])[:8], fingerprint([one], [one, one])[:8]
        ('f5a5fd42', '2ea9ab91')
    """
    digest = hashlib.sha256()
    for one in (*baseline, *arm):
        digest.update(np.ascontiguousarray(one.last).tobytes())
    return digest.hexdigest()


def differing_name(condition: str, *, better: bool) -> str:
    """Return the name of stored test examples on which the best arm, or the baseline, is better."""
    return f"{'better' if better else 'worse'}, {condition}"

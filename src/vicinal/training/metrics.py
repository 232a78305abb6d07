"""Metrics of test outputs, each as one value per example, so that intervals can cover the examples.

The mean of the values is the metric; ``vicinal.per_example`` says what they are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logsumexp

from vicinal import per_example
from vicinal.errors import UserError, unknown
from vicinal.per_example import log_probabilities, one_hot

Array = NDArray[Any]
TASKS = ("classification", "multi-label", "regression")


class Metric(NamedTuple):
    """How a metric is shown.

    Args:
        title: as shown in tables.
        tasks: for which it is defined.
        percent: whether it is shown in percent.
        higher: whether a higher value is better.
        counted: whether each example adds 0 or 1, or the share of its labels that are correct.
        shares: whether it is a mean of shares, to which classes without errors add no variance.
        lowest: smallest value, as a fraction if it is shown in percent.
        highest: largest value.
    """

    title: str
    tasks: tuple[str, ...]
    percent: bool = True
    higher: bool = True
    counted: bool = False
    shares: bool = False
    lowest: float = 0.0
    highest: float = 1.0


def metric_values(name: str, outputs: Array, targets: Array, task: str) -> Array:
    """Return one value per example, ``(n,)`` float64, whose mean is the metric.

    Args:
        name: one of ``METRICS``.
        outputs: ``(n, k)``: logits of the classes or labels, or real values.
        targets: ``(n,)`` integer classes; ``(n, k)`` labels, 0 or 1; or ``(n, k)`` real values.
        task: one of ``TASKS``.

    Example:
        >>> outputs = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        >>> metric_values("accuracy", outputs, np.array([0, 1, 1]), "classification")
        array([1., 0., 1.])
    """
    function = (_OF_LABELS if task == "multi-label" else _OF_OTHERS)[name]
    return function(outputs, targets)


def constant_value(
    name: str, constant: Mapping[str, Sequence[float]], targets: Array, task: str
) -> float:
    """Return the metric of a constant predictor.

    Args:
        name: one of ``METRICS``.
        constant: as ``vicinal.training.task.constant_outputs`` returns it.
        targets: targets of the test split.
        task: one of ``TASKS``.

    Example:
        >>> constant_value("mae", {"mean": [2.0], "median": [1.0]}, np.array([[1.0]]), "regression")
        0.0
    """
    outputs = constant["median" if name == "mae" else "mean"]
    return float(metric_values(name, np.tile(outputs, (len(targets), 1)), targets, task).mean())


def check_metric(name: str) -> None:
    """Raise a ``UserError`` if there is no such metric."""
    if name not in METRICS:
        raise UserError(unknown("metric", name, METRICS))


def metrics_of(task: str, outputs: int) -> list[str]:
    """Return the names of the metrics that are defined for a task and its number of outputs.

    Example:
        >>> metrics_of("regression", 1)
        ['rmse', 'mae', 'r2']
    """
    fitting = [name for name, one in METRICS.items() if task in one.tasks]
    return [name for name in fitting if name != "top-5" or outputs > 5]


def least_difference(name: str, targets: Array, task: str) -> float:
    """Return by how much three test examples can change a metric.

    Two arms that agree on all ``n`` test examples may still differ on others: the 95% interval of
    the share of such examples extends to ``3 / n`` (the rule of three). For a mean over classes,
    the smallest class decides.

    Args:
        name: one of ``METRICS``.
        targets: targets of the test split.
        task: one of ``TASKS``.

    Returns:
        A fraction; 0 for metrics that are not fractions.

    Example:
        >>> targets = np.array([0] * 90 + [1] * 10)
        >>> [least_difference(name, targets, "classification") for name in ("accuracy", "auroc")]
        [0.03, 0.3]
    """
    if not METRICS[name].percent or not len(targets):
        return 0.0
    if name in ("accuracy", "top-5", "ece"):
        return 3 / len(targets)
    counts = np.bincount(targets) if task == "classification" else targets.sum(0)
    counts = counts[(counts > 0) & (counts < len(targets))]
    if not len(counts):
        return 1.0
    smallest = float(counts.min())
    if name == "auroc":
        smallest = min(smallest, float(len(targets) - counts.max()))
    # The two classes of a binary task always change together.
    together = task == "classification" and name in ("auroc", "average-precision")
    several = 1 if len(counts) <= 2 and together else len(counts)
    return min(3 / smallest, 1.0) / several


def check_metrics(names: Iterable[str], task: str, outputs: int) -> None:
    """Raise unless all metrics are defined for a task and its number of outputs.

    Args:
        names: names of metrics.
        task: one of ``TASKS``.
        outputs: number of outputs of the network, such as classes.

    Raises:
        UserError: with the names that are defined.
    """
    fitting = metrics_of(task, outputs)
    for name in names:
        if name not in fitting:
            raise UserError(
                f"metrics: expected a metric of {task} with {outputs} output{'s' * (outputs > 1)}, "
                f"got {name}. Choose one of {', '.join(fitting)}. If this should not be a {task} "
                "task, choose another label."
            )


def _top5(logits: Array, classes: Array) -> Array:
    own = np.take_along_axis(logits, classes[:, None], 1)
    # As torch.topk does for ties, an earlier class comes first.
    earlier = np.arange(logits.shape[1]) < classes[:, None]
    before = (logits > own) | ((logits == own) & earlier)
    return (before.sum(1) < 5).astype(np.float64)


def _balanced_accuracy(logits: Array, classes: Array) -> Array:
    correct, present = per_example.correct(logits, classes), np.unique(classes)
    counts = np.bincount(classes)
    recall = np.bincount(classes, correct) / np.maximum(counts, 1)
    weight = len(classes) / (len(present) * counts[classes])
    return recall[present].mean() + weight * (correct - recall[classes])


def _f1(predicted: Array, true: Array) -> Array:
    """Return values of the mean over columns of F1; columns without positives are left out."""
    both, sums = predicted * true, predicted + true
    total = sums.sum(0)
    kept = true.sum(0) > 0
    f1 = 2 * both.sum(0)[kept] / total[kept]
    influence = len(true) * (2 * both[:, kept] - f1 * sums[:, kept]) / total[kept]
    return f1.mean() + influence.mean(1)


def _log_odds(logits: Array) -> Array:
    """Return the log-odds of each class, which differ even where probabilities round to 1."""
    first = logits.argmax(1)[:, None]
    others = logits.astype(np.float64)
    np.put_along_axis(others, first, -np.inf, 1)
    logs = log_probabilities(logits)
    odds = logs - np.log1p(-np.minimum(np.exp(logs), 0.5))
    rest = logsumexp(others, axis=1, keepdims=True)
    np.put_along_axis(odds, first, np.take_along_axis(logits, first, 1) - rest, 1)
    return odds


def _average_precision(logits: Array, classes: Array) -> Array:
    scores, true = _log_odds(logits), one_hot(logits, classes)
    if logits.shape[1] == 2:  # of the rarer class
        # The second class if both are about as frequent, so that all splits measure the same one.
        rarer = [int(true[:, 1].mean() <= 0.55)]
        scores, true = scores[:, rarer], true[:, rarer]
    return _mean_over_columns(_average_precision_of, scores, true)


def _mean_over_columns(
    values: Callable[[Array, Array], Array], scores: Array, true: Array
) -> Array:
    """Average over the columns that have positives and negatives; NaN if there are none."""
    columns = [k for k in range(true.shape[1]) if 0 < true[:, k].sum() < len(true)]
    if not columns:
        return np.full(len(true), np.nan)
    return np.mean([values(scores[:, k], true[:, k] > 0) for k in columns], axis=0)


def _average_precision_of(score: Array, positive: Array) -> Array:
    _, level = np.unique(-score, return_inverse=True)  # from the highest score
    here, positives = np.bincount(level), np.bincount(level, positive)
    above = np.cumsum(here)
    precision = np.cumsum(positives) / above
    mean = (precision * positives).sum() / positives.sum()
    # Sums over the positives with at most this score: an example changes their precision.
    counts, precisions = (
        np.cumsum((positives * one / above)[::-1])[::-1][level] for one in (1.0, precision)
    )
    change = positive * (precision[level] - mean + counts) - precisions
    return mean + change * len(score) / positives.sum()


def _label_nll(logits: Array, labels: Array) -> Array:
    wide = logits.astype(np.float64)
    return -np.where(labels > 0, log_expit(wide), log_expit(-wide)).mean(1)


def _errors(outputs: Array, targets: Array) -> Array:
    return outputs.astype(np.float64) - targets.reshape(outputs.shape)


def _rmse(outputs: Array, targets: Array) -> Array:
    squares = np.square(_errors(outputs, targets))
    root = np.sqrt(squares.mean(0))
    return (root + (squares - root**2) / np.where(root > 0, 2 * root, 1)).mean(1)


def _r2(outputs: Array, targets: Array) -> Array:
    true = targets.reshape(outputs.shape).astype(np.float64)
    squares, around = np.square(_errors(outputs, targets)), np.square(true - true.mean(0))
    variance = around.mean(0)
    variance = np.where(variance > 0, variance, np.nan)  # undefined for targets that are the same
    r2 = 1 - squares.mean(0) / variance
    return (r2 - (squares - (1 - r2) * around) / variance).mean(1)


_ONE, _BOTH, _REAL = ("classification",), ("classification", "multi-label"), ("regression",)

METRICS = {
    "accuracy": Metric("accuracy", _BOTH, counted=True),
    "balanced-accuracy": Metric("balanced accuracy", _ONE, shares=True),
    "macro-f1": Metric("macro F1", _BOTH),
    "auroc": Metric("AUROC", _BOTH),
    "average-precision": Metric("average precision", _BOTH),
    "top-5": Metric("top-5 accuracy", _ONE, counted=True),
    "nll": Metric("NLL", _BOTH, percent=False, higher=False, highest=math.inf),
    "brier": Metric("Brier score", _BOTH, percent=False, higher=False, highest=2.0),
    "ece": Metric("calibration error (ECE)", _ONE, higher=False),
    "rmse": Metric("RMSE", _REAL, percent=False, higher=False, highest=math.inf),
    "mae": Metric("MAE", _REAL, percent=False, higher=False, highest=math.inf),
    "r2": Metric("R²", _REAL, percent=False, lowest=-math.inf),
}
"""The metrics by name. AUROC, average precision, F1 and balanced accuracy are means over classes or
labels (macro averages); classes without test examples are left out. For two classes, the average
precision is that of the rarer one. The Brier score is the squared error of the probabilities,
summed over classes or averaged over labels. Regression metrics are averaged over outputs."""

_Values = Callable[[Array, Array], Array]
_OF_LABELS: dict[str, _Values] = {
    "accuracy": lambda logits, labels: ((logits > 0) == (labels > 0)).mean(1),
    "macro-f1": lambda logits, labels: _f1((logits > 0).astype(float), labels.astype(float)),
    "auroc": partial(_mean_over_columns, per_example.auroc),
    "average-precision": partial(_mean_over_columns, _average_precision_of),
    "nll": _label_nll,
    "brier": lambda logits, labels: np.square(expit(logits.astype(float)) - labels).mean(1),
}
_OF_OTHERS: dict[str, _Values] = {
    "accuracy": per_example.correct,
    "balanced-accuracy": _balanced_accuracy,
    "macro-f1": lambda logits, y: _f1(one_hot(logits, logits.argmax(1)), one_hot(logits, y)),
    "auroc": lambda logits, y: _OF_LABELS["auroc"](_log_odds(logits), one_hot(logits, y)),
    "average-precision": _average_precision,
    "top-5": _top5,
    "nll": per_example.nll,
    "brier": per_example.brier,
    "ece": per_example.ece,
    "rmse": _rmse,
    "mae": lambda outputs, targets: np.abs(_errors(outputs, targets)).mean(1),
    "r2": _r2,
}

DEFAULT_METRICS = {
    "classification": ("accuracy", "nll", "ece"),
    "multi-label": ("average-precision", "auroc", "macro-f1"),
    "regression": ("rmse", "mae", "r2"),
}
"""The metrics of a study that names none; the first one is the primary metric."""


def primary_metric(chosen: Sequence[str], task: str) -> str:
    """Return the primary metric: the first of a recipe, or that of the task.

    Example:
        >>> primary_metric((), "regression")
        'rmse'
    """
    return (*chosen, *DEFAULT_METRICS[task])[0]


def metric_of(name: str, task: str) -> Metric:
    """Return how a metric is shown in a task: the Brier score of labels is at most 1."""
    of_labels = name == "brier" and task == "multi-label"
    return METRICS[name]._replace(highest=1.0) if of_labels else METRICS[name]


def reported_metrics(chosen: Sequence[str], task: str) -> list[str]:
    """Return the metrics of a report, the primary one first.

    A recipe that names one metric names the primary one only; the others are those of the task.

    Example:
        >>> reported_metrics(["auroc"], "classification")
        ['auroc', 'accuracy', 'nll', 'ece']
        >>> reported_metrics(["r2", "mae"], "regression")
        ['r2', 'mae']
    """
    others = DEFAULT_METRICS[task] if len(chosen) < 2 else ()
    return list(dict.fromkeys((*chosen, *others)))


def metric_text(name: str, value: float) -> str:
    """Return a metric with its title and unit.

    Example:
        >>> metric_text("accuracy", 0.987), metric_text("rmse", 1.23456)
        ('accuracy 98.70%', 'RMSE 1.235')
    """
    return f"{METRICS[name].title} {value_text(name, value)}"


def value_text(name: str, value: float) -> str:
    """Return a metric with its unit.

    Example:
        >>> value_text("accuracy", 0.987), value_text("rmse", 1.23456)
        ('98.70%', '1.235')
    """
    return f"{100 * value:.2f}%" if METRICS[name].percent else plain(value)


def plain(value: float) -> str:
    """Return a number with four digits, or more if it is an integer of more.

    Example:
        >>> plain(1.23456), plain(23456.7), plain(1.5e-7)
        ('1.235', '23,457', '1.5e-07')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"

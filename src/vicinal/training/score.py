"""Evaluation of a checkpoint on a data set: ``vicinal score``."""

import math
from typing import NamedTuple

import numpy as np

from vicinal.data import DataSet, Split
from vicinal.data.dataset import SkippedExamples
from vicinal.errors import UserError
from vicinal.training.evaluation import Predictions
from vicinal.training.evaluation_data import targets_as_trained
from vicinal.training.metrics import constant_value, metric_values, metrics_of
from vicinal.training.trained_network import TrainedNetwork


class Confusion(NamedTuple):
    """Examples of class ``true`` that were predicted as class ``predicted``."""

    true: str
    predicted: str
    examples: int


class Scores(NamedTuple):
    """The scores of a network.

    Args:
        examples: number of examples.
        task: classification, multi-label or regression.
        metrics: the value of each metric that is defined for the task, by its name in
            ``vicinal.training.metrics.METRICS``; None if it is undefined for these examples.
        constant: the same metrics of the constant prediction that is best on the training split.
        worst: the most frequent confusions of classes, in descending order.
        skipped: a sentence for each example that could not be read.
    """

    examples: int
    task: str
    metrics: dict[str, float | None]
    constant: dict[str, float | None]
    worst: list[Confusion]
    skipped: tuple[str, ...] = ()


def score_network(
    trained: TrainedNetwork, data: DataSet, *, split: str = "test", confusions: int = 5
) -> Scores:
    """Score a network on a data set that is prepared as during training.

    The same examples give the same metrics as during training. The classes of the data may be in
    any order.

    Args:
        trained: the network.
        data: see ``vicinal.training.evaluation_data.load_as_trained``.
        split: ``"test"``, ``"train"`` or ``"validation"``.
        confusions: how many of the most frequent confusions to return.

    Raises:
        UserError: if the data do not fit the network.
    """
    rows = data.splits.get(split)
    if rows is None:
        raise UserError(f"--split: expected one of {', '.join(data.splits)}, got {split!r}.")
    targets = targets_as_trained(trained.info, data, rows)
    skips = SkippedExamples(skip_bad=True)
    predictions = trained.predictions(Split(rows.inputs, targets), skips)
    found = scores_of(
        predictions,
        task=trained.task,
        classes=trained.classes,
        predictor=trained.info.origin["data"]["predictor"],
        confusions=confusions,
    )
    return found._replace(skipped=(*rows.skipped, *skips.sentences))


def scores_of(
    predictions: Predictions,
    *,
    task: str,
    predictor: dict[str, list[float]],
    classes: tuple[str, ...] = (),
    confusions: int = 5,
) -> Scores:
    """Return the scores of predictions.

    Args:
        predictions: outputs ``(n, k)``, and targets as ``metric_values`` takes them.
        task: the task.
        predictor: the outputs of constant predictors; see ``constant_outputs``.
        classes: their names, if there are classes.
        confusions: how many of the most frequent confusions to return.

    Example:
        >>> import torch
        >>> predictions = Predictions(torch.tensor([[4.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        >>> names, constant = ("cat", "dog"), {"mean": [0.0, 0.0]}
        >>> found = scores_of(
        ...     predictions, task="classification", predictor=constant, classes=names
        ... )
        >>> found.metrics["accuracy"], found.worst
        (0.5, [Confusion(true='dog', predicted='cat', examples=1)])
    """
    outputs, targets = (one.cpu().numpy() for one in predictions)
    names = metrics_of(task, outputs.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):  # an undefined metric becomes None
        values = {k: float(np.mean(metric_values(k, outputs, targets, task))) for k in names}
        constant = {k: constant_value(k, predictor, targets, task) for k in names}
    worst = _confusions(outputs.argmax(1), targets, classes)[:confusions] if classes else []
    return Scores(len(targets), task, _defined(values), _defined(constant), worst)


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _confusions(
    predicted: np.ndarray, true: np.ndarray, classes: tuple[str, ...]
) -> list[Confusion]:
    """Return all confusions, the most frequent ones first, then in the order of the classes."""
    wrong = np.stack([true, predicted], 1)[predicted != true]
    pairs, counts = np.unique(wrong, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [Confusion(classes[pairs[k, 0]], classes[pairs[k, 1]], int(counts[k])) for k in order]

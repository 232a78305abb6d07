"""Evaluation: how well a network answers, never mixed."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Score(NamedTuple):
    """Mean cross-entropy in nats, and the accuracy as a fraction."""

    loss: float
    accuracy: float


class Answers(NamedTuple):
    """What a network answers, ``(n, classes)``, to what has these targets, ``(n,)``."""

    scores: Tensor
    targets: Tensor


def answers(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Answers:
    """Return what a network answers in eval mode; its mode is left as it was.

    Args:
        model: ``(batch, ...)`` to ``(batch, classes)``.
        batches: inputs and targets, such as an epoch of a ``Loader``.
    """
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            each = [(model(x), y) for x, y in batches]
    finally:
        model.train(training)
    scores, targets = zip(*each, strict=True)
    return Answers(torch.cat(scores), torch.cat(targets))


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Return loss and accuracy over ``(batch, ...)`` inputs with ``(batch,)`` int64 classes.

    Example:
        >>> evaluate(nn.Identity(), [(torch.zeros(2, 4), torch.tensor([0, 3]))])
        Score(loss=1.3862943649291992, accuracy=0.5)
    """
    scores, targets = answers(model, batches)
    right = (scores.argmax(1) == targets).double().mean()
    return Score(float(F.cross_entropy(scores, targets)), float(right))

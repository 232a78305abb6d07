"""Evaluation: how well a network answers, never mixed."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Score(NamedTuple):
    """Mean cross-entropy in nats, and the accuracy as a fraction."""

    loss: float
    accuracy: float


def scores(model: nn.Module, inputs: Tensor, batch_size: int = 1024) -> Tensor:
    """Return what a network answers in eval mode, ``(n, classes)``; its mode is left as it was."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            return torch.cat([model(part) for part in torch.split(inputs, batch_size)])
    finally:
        model.train(training)


def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> Score:
    """Return loss and accuracy over ``(n, ...)`` inputs and ``(n,)`` int64 classes.

    Example:
        >>> evaluate(nn.Identity(), torch.zeros(2, 4), torch.tensor([0, 3]))
        Score(loss=1.3862943649291992, accuracy=0.5)
    """
    answers = scores(model, inputs)
    right = (answers.argmax(1) == targets).double().mean()
    return Score(float(F.cross_entropy(answers, targets)), float(right))

"""Evaluation: how well a network answers, never mixed."""

import contextlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn


class Score(NamedTuple):
    """Mean cross-entropy in nats, and the accuracy as a fraction."""

    loss: float
    accuracy: float


class Answers(NamedTuple):
    """What a network answers, ``(n, classes)``, to what has these targets, ``(n,)``."""

    scores: Tensor
    targets: Tensor


def answers(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fabric: Fabric | None = None,
    tta: bool = False,
    channels_last: bool = False,
) -> Answers:
    """Return what a network answers in eval mode; its mode is left as it was.

    Args:
        model: ``(batch, ...)`` to ``(batch, classes)``.
        batches: inputs and targets, such as an epoch of a ``Loader``.
        fabric: for the precision of what is computed.
        tta: whether to average the logarithms of the probabilities for a picture and for
            its mirror image.
        channels_last: whether the channels of a place of a picture lie together in memory.

    Returns:
        Scores in float32 (float64 from a float64 network), and the targets.
    """
    training = model.training
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())
    each = []
    model.eval()
    try:
        with torch.inference_mode():
            for x, y in batches:
                batch = x.to(dtype) if x.is_floating_point() else x
                if channels_last and x.dim() == 4:
                    batch = batch.to(memory_format=torch.channels_last)
                scores = _forward(model, batch, fabric).to(dtype)
                if tta and x.dim() == 4:
                    mirrored = _forward(model, batch.flip(3), fabric).to(dtype)
                    scores = (F.log_softmax(scores, 1) + F.log_softmax(mirrored, 1)) / 2
                each.append((scores, y))
    finally:
        model.train(training)
    return Answers(torch.cat([one for one, _ in each]), torch.cat([y for _, y in each]))


def _forward(model: nn.Module, x: Tensor, fabric: Fabric | None) -> Tensor:
    with fabric.autocast() if fabric else contextlib.nullcontext():
        scores: Tensor = model(x)
    return scores


def score_of(given: Answers, *, total: Callable[[Tensor], Tensor] = lambda sums: sums) -> Score:
    """Return loss and accuracy.

    Args:
        given: scores and targets.
        total: adds up numbers over all processes, where each has its share of the answers.

    Example:
        >>> score_of(Answers(torch.zeros(2, 4), torch.tensor([0, 3])))
        Score(loss=1.3862943611198906, accuracy=0.5)
    """
    scores, targets = given
    if scores.device.type == "mps":  # which has no float64
        scores, targets = scores.cpu(), targets.cpu()
    sums = torch.stack(
        [
            F.cross_entropy(scores.double(), targets, reduction="sum"),
            (scores.argmax(1) == targets).double().sum(),
            torch.tensor(len(targets), dtype=torch.float64, device=scores.device),
        ]
    )
    loss, right, count = total(sums).tolist()
    return Score(loss / count, right / count)


def counted(given: Answers, classes: int) -> Tensor:
    """Count the examples of each class and those answered right, ``(2, classes)`` int64.

    Example:
        >>> counted(Answers(torch.eye(3), torch.tensor([0, 1, 1])), 3)
        tensor([[1, 2, 0],
                [1, 1, 0]])
    """
    scores, targets = given
    right = targets[scores.argmax(1) == targets]
    return torch.stack([one.bincount(minlength=classes) for one in (targets, right)])


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Return loss and accuracy over ``(batch, ...)`` inputs with ``(batch,)`` int64 classes.

    Example:
        >>> evaluate(nn.Identity(), [(torch.zeros(2, 4), torch.tensor([0, 3]))])
        Score(loss=1.3862943611198906, accuracy=0.5)
    """
    return score_of(answers(model, batches))

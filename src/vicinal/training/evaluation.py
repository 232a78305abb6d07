"""Evaluation: predictions, loss and accuracy of a network. Inputs are never mixed."""

import contextlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from vicinal.training.settings import Training


class Score(NamedTuple):
    """Mean cross-entropy in nats, and accuracy as a fraction."""

    loss: float
    accuracy: float


class Predictions(NamedTuple):
    """Logits ``(n, classes)`` and the targets ``(n,)`` of the same examples."""

    logits: Tensor
    targets: Tensor


def predict(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fabric: Fabric | None = None,
    settings: Training | None = None,
) -> Predictions:
    """Return the predictions of a network in eval mode; its mode is restored.

    Args:
        model: maps ``(batch, ...)`` to ``(batch, classes)``.
        batches: inputs and targets, such as an epoch of a ``Loader``.
        fabric: sets the precision of the computation.
        settings: for ``tta``, which averages the log-probabilities of an image and its horizontal
            flip, and for ``channels_last``.

    Returns:
        Logits in the dtype of the network, and the targets.
    """
    training = model.training
    tta, channels_last = (settings.tta, settings.channels_last) if settings else (False, False)
    dtype = next((p.dtype for p in model.parameters()), torch.get_default_dtype())

    def forward(x: Tensor) -> Tensor:
        with fabric.autocast() if fabric else contextlib.nullcontext():
            logits: Tensor = model(x)
        return logits.to(dtype)

    pairs = []
    model.eval()
    try:
        with torch.inference_mode():
            for inputs, targets in batches:
                x = inputs.to(dtype) if inputs.is_floating_point() else inputs
                if channels_last and x.dim() == 4:
                    x = x.to(memory_format=torch.channels_last)
                logits = forward(x)
                if tta and x.dim() == 4:
                    flipped = forward(x.flip(3))
                    logits = (F.log_softmax(logits, 1) + F.log_softmax(flipped, 1)) / 2
                pairs.append((logits, targets))
    finally:
        model.train(training)
    return Predictions(*(torch.cat(each) for each in zip(*pairs, strict=True)))


def score_of(
    predictions: Predictions, *, all_reduce_sum: Callable[[Tensor], Tensor] = lambda sums: sums
) -> Score:
    """Return loss and accuracy.

    Args:
        predictions: logits and targets.
        all_reduce_sum: sums numbers over processes, if each has some of the examples.

    Example:
        >>> score_of(Predictions(torch.zeros(2, 4), torch.tensor([0, 3])))
        Score(loss=1.3862943611198906, accuracy=0.5)
    """
    logits, targets = predictions
    if logits.device.type == "mps":  # has no float64
        logits, targets = logits.cpu(), targets.cpu()
    sums = torch.stack(
        [
            F.cross_entropy(logits.double(), targets, reduction="sum"),
            (logits.argmax(1) == targets).double().sum(),
            torch.tensor(len(targets), dtype=torch.float64, device=logits.device),
        ]
    )
    loss, correct, count = all_reduce_sum(sums).tolist()
    return Score(loss / count, correct / count)


def class_counts(predictions: Predictions, classes: int) -> Tensor:
    """Count all examples and the correctly predicted ones of each class, ``(2, classes)`` int64.

    Example:
        >>> class_counts(Predictions(torch.eye(3), torch.tensor([0, 1, 1])), 3)
        tensor([[1, 2, 0],
                [1, 1, 0]])
    """
    logits, targets = predictions
    correct = targets[logits.argmax(1) == targets]
    return torch.stack([one.bincount(minlength=classes) for one in (targets, correct)])


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Score:
    """Return loss and accuracy on ``(batch, ...)`` inputs with ``(batch,)`` int64 targets.

    Example:
        >>> evaluate(nn.Identity(), [(torch.zeros(2, 4), torch.tensor([0, 3]))])
        Score(loss=1.3862943611198906, accuracy=0.5)
    """
    return score_of(predict(model, batches))

"""The loss that training minimizes, with class weights and label smoothing."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.errors import UserError
from vicinal.training.settings import Training
from vicinal.training.task import Task

LOSSES: dict[str, Callable[..., Tensor]] = {
    "classification": F.cross_entropy,
    "multi-label": F.binary_cross_entropy_with_logits,
    "regression": F.mse_loss,
}
"""The loss of each task, a mean over examples."""


def criterion_of(
    task: Task, settings: Training, targets: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss that training minimizes, a mean over examples.

    Args:
        task: decides the loss: cross-entropy for classification, binary cross-entropy for
            multi-label classification, and the squared error for regression.
        settings: of which ``label_smoothing`` and ``class_weights`` are used.
        targets: targets of the training split, ``(n,)`` classes or ``(n, labels)``.

    Raises:
        UserError: if a setting is not defined for the task.
    """
    for name in ("label_smoothing", "class_weights", "sampling"):
        default = type(settings).model_fields[name].default
        if task.name != "classification" and getattr(settings, name) != default:
            raise UserError(
                f"training.{name}: expected a classification task, got {task.name}. Remove it."
            )
    if task.name != "classification":
        return LOSSES[task.name]
    smoothing = settings.label_smoothing
    if settings.class_weights == "none":
        return partial(F.cross_entropy, label_smoothing=smoothing)
    weight = balanced_weights(targets, task.outputs)
    return partial(_weighted_cross_entropy, weight=weight, label_smoothing=smoothing)


def _weighted_cross_entropy(
    outputs: Tensor,
    targets: Tensor,
    *,
    weight: Tensor,
    label_smoothing: float,
    reduction: str = "mean",
) -> Tensor:
    """Average over examples, as under mixing; PyTorch divides by the weights of the batch."""
    losses = F.cross_entropy(
        outputs, targets, weight, label_smoothing=label_smoothing, reduction="none"
    )
    return losses.mean() if reduction == "mean" else losses


def balanced_weights(targets: Tensor, classes: int) -> Tensor:
    """Return ``(classes,)`` float32 weights: ``n / (classes * count)``, as in scikit-learn.

    The weight of a class without examples is 0, so that label smoothing ignores it.

    Example:
        >>> balanced_weights(torch.tensor([0, 0, 0, 1]), 2)
        tensor([0.6667, 2.0000])
    """
    counts = targets.bincount(minlength=classes)
    weights = len(targets) / (classes * counts.clamp(min=1))
    return weights.where(counts > 0, 0).to(torch.float32)

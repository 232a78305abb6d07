"""Losses, targets and accuracies under mixed labels."""

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Criterion = Callable[..., Tensor] | nn.Module
"""A function ``criterion(output, y, reduction=...)`` or a module with ``reduction``."""


def mixed_loss(
    criterion: Criterion, output: Tensor, y: Tensor, *, partner: Tensor, lam: Tensor
) -> Tensor:
    """Return ``lam * criterion(output, own) + (1 - lam) * criterion(output, partner)``.

    The pair form of Zhang et al. (https://arxiv.org/abs/1710.09412), section 2: for plain
    cross-entropy it equals the cross-entropy against soft targets. The rest is ours to define:

    * The mean is over examples (elements, where the criterion answers with several per example).
      With class weights PyTorch would divide by the sum of the weights instead, for integer
      labels only, so that its two forms disagree; here weights multiply, and nothing else.
    * Where one side of a blend is the ignored class, the other side gets its share; where both
      are, the element counts nowhere, in the sum or in the number. ``ignore_index`` is read from
      an ``nn.CrossEntropyLoss`` or ``nn.NLLLoss``, from ``functools.partial`` around a function,
      or from the function's own default.
    * A module's ``reduction="sum"`` or ``"none"`` is obeyed; the mean is taken otherwise.

    Args:
        criterion: a function that takes ``reduction="none"``, or a module that has ``reduction``.
        output: ``(batch, ...)``.
        y: ``(batch, ...)``, targets before mixing, of any form that ``criterion`` takes.
        partner: ``(batch,)`` int64.
        lam: ``(batch,)``.
    """
    each, reduction = _per_element(criterion)
    own, met = _evaluate(each, output, y), _evaluate(each, output, y[partner])
    shape = (-1, *[1] * (own.dim() - 1))
    keep = lam.to(own.dtype).reshape(shape).expand_as(own)
    give = 1 - keep
    counted: Tensor | int = own.numel()
    ignored = _ignore_index(criterion)
    if ignored is not None and not y.dtype.is_floating_point and y.shape == own.shape:
        own_counts, met_counts = y != ignored, y[partner] != ignored
        keep = torch.where(met_counts, keep, 1) * own_counts
        give = torch.where(own_counts, give, 1) * met_counts
        counted = (own_counts | met_counts).sum()
    loss = keep * own + give * met
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / counted


def mixed_targets(
    y: Tensor, num_classes: int | None = None, *, partner: Tensor, lam: Tensor
) -> Tensor:
    """Return soft targets; see ``Plan.targets``."""
    if y.dtype.is_floating_point or y.dtype == torch.bool:
        if num_classes is not None:
            raise ValueError(
                f"num_classes is for integer classes; y of type {y.dtype} and shape "
                f"{tuple(y.shape)} is blended as it is: leave num_classes out."
            )
        soft = y.float() if y.dtype == torch.bool else y
    else:
        soft = _one_hot(y, num_classes)
    keep = lam.to(soft.dtype).reshape(-1, *[1] * (soft.dim() - 1))
    return keep * soft + (1 - keep) * soft[partner]


def mixed_accuracy(output: Tensor, y: Tensor, *, partner: Tensor, lam: Tensor) -> Tensor:
    """Return the accuracy weighted by shares; see ``Plan.accuracy``."""
    answer = output.argmax(1)
    if answer.shape != y.shape:
        raise ValueError(
            f"accuracy needs scores (batch, classes, ...) and classes (batch, ...), "
            f"got {tuple(output.shape)} and {tuple(y.shape)}."
        )
    keep = lam.reshape(-1, *[1] * (y.dim() - 1))
    return (keep * (answer == y) + (1 - keep) * (answer == y[partner])).mean()


def _per_element(criterion: Criterion) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
    """Split a criterion into one that answers per element, and the reduction that it asked for."""
    if isinstance(criterion, nn.Module):
        reduction = getattr(criterion, "reduction", None)
        if not isinstance(reduction, str):
            raise TypeError(
                f"mixing needs one loss per example, and {type(criterion).__name__} has no "
                '"reduction" to set to "none"; pass a function criterion(output, y, reduction).'
            )
        each = copy.copy(criterion)
        each.reduction = "none"  # type: ignore[assignment]
        return each, reduction
    if not _takes_reduction(criterion):
        raise TypeError(
            f"mixing needs one loss per example, and {getattr(criterion, '__name__', criterion)} "
            'takes no reduction="none"; pass a function criterion(output, y, reduction).'
        )
    return functools.partial(criterion, reduction="none"), "mean"


def _takes_reduction(function: Callable[..., Tensor]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == "reduction" or p.kind is p.VAR_KEYWORD for p in parameters)


def _ignore_index(criterion: Criterion) -> int | None:
    if isinstance(criterion, nn.Module):
        value: Any = getattr(criterion, "ignore_index", None)
    else:
        parameter = inspect.signature(criterion).parameters.get("ignore_index")
        value = parameter.default if parameter else None
    return value if isinstance(value, int) else None


def _evaluate(each: Callable[[Tensor, Tensor], Tensor], output: Tensor, y: Tensor) -> Tensor:
    loss = each(output, y)
    if loss.dim() == 0 or len(loss) != len(output):
        raise ValueError(
            f"mixing needs one loss per example: output has batch size {len(output)}, the "
            f'criterion answered with shape {tuple(loss.shape)}; it has to obey reduction="none".'
        )
    return loss


def _one_hot(y: Tensor, num_classes: int | None) -> Tensor:
    if num_classes is None:
        raise ValueError(
            f"targets needs num_classes for integer classes; y has type {y.dtype} and shape "
            f"{tuple(y.shape)}: pass num_classes, or y.float() if these are real values."
        )
    if y.device.type == "cpu" and bool(((y < 0) | (y >= num_classes)).any()):
        raise ValueError(
            f"targets needs classes from 0 to {num_classes - 1}, "
            f"got {int(y.min())} to {int(y.max())}."
        )
    return F.one_hot(y.long(), num_classes).movedim(-1, 1).float()

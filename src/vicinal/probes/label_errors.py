"""Errors on real and on corrupted training labels: what a network has memorized."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vicinal.errors import UserError
from vicinal.probes.running import (
    Data,
    batches,
    check_finite,
    check_labels,
    eval_mode,
    logits_of,
)


class Memorization(NamedTuple):
    """Errors on the labels that a network was trained with.

    Args:
        errors: ``(n,)`` bool, whether the prediction differs from the label of the training.
        corrupted: ``(n,)`` bool, whether that label was corrupted.
    """

    errors: Tensor
    corrupted: Tensor

    @property
    def real_error(self) -> float:
        """The share of errors among the real labels; NaN if there are none."""
        return float(self.errors[~self.corrupted].double().mean())

    @property
    def corrupted_error(self) -> float:
        """The share of errors among the corrupted labels; 0 if all were memorized."""
        return float(self.errors[self.corrupted].double().mean())


def memorization(model: nn.Module, data: Data) -> Memorization:
    """Measure the training error of a network on real and on corrupted labels.

    Zhang et al. (https://arxiv.org/abs/1710.09412), table 2, report both after the last epoch. A
    network that learns and does not memorize has few errors on real labels, and many on corrupted
    ones.

    Args:
        model: maps inputs ``(batch, ...)`` to logits ``(batch, classes)``. It is run in eval mode;
            its mode is restored.
        data: batches ``(inputs, labels, corrupted)`` of the training examples, unmixed and without
            augmentation. ``labels`` are those of the training, and ``corrupted`` is a bool mask:
            ``replaced`` of ``vicinal.data.corrupt_labels`` for all labels that were drawn at
            random, or ``labels != true_labels`` for those that are wrong. Of labels drawn from all
            of ``k`` classes, one in ``k`` is correct by chance, so a network that memorizes
            nothing has an error of about ``1 - 1 / k`` on the former.

    Returns:
        One value per example, in the order of the data.

    Raises:
        UserError: if data or outputs are not as expected, or no label is corrupted.

    Example:
        >>> logits = torch.eye(3)[[0, 1, 2, 2]] * 9
        >>> labels, true_labels = torch.tensor([0, 1, 2, 0]), torch.tensor([0, 1, 0, 2])
        >>> found = memorization(nn.Identity(), [(logits, labels, labels != true_labels)])
        >>> found.real_error, found.corrupted_error
        (0.0, 0.5)
    """
    names, found = ("inputs", "labels", "corrupted"), []
    with eval_mode(model), torch.no_grad():
        for inputs, labels, corrupted in batches(model, data, names=names):
            if corrupted.dtype != torch.bool or corrupted.dim() != 1:
                raise UserError(
                    "data, corrupted: expected a bool mask of shape (n,), got "
                    f"{corrupted.dtype} of shape {tuple(corrupted.shape)}. From true labels, make "
                    "it with labels != true_labels."
                )
            logits = logits_of(model, inputs)
            check_labels(labels, logits.shape[1], where="data, labels")
            largest, predicted = logits.max(1)
            found.append((largest, predicted != labels, corrupted))
    largest, errors, corrupted = (torch.cat(each).cpu() for each in zip(*found, strict=True))
    check_finite(largest)
    if not corrupted.any():
        raise UserError(
            "data, corrupted: expected at least one corrupted label, got none. The training error "
            "alone does not show memorization."
        )
    return Memorization(errors, corrupted)


def memorized_fraction(predictions: Tensor, *, given: Tensor, true: Tensor) -> float | None:
    """Return the fraction of the wrong training labels that a network predicts.

    Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4, measure memorization by the
    training error on corrupted labels, which also counts labels that are correct by chance.

    Args:
        predictions: ``(n,)`` int64, the predicted classes of the training inputs.
        given: ``(n,)`` int64, the labels that the network was trained with.
        true: ``(n,)`` int64, the labels before corruption.

    Returns:
        A fraction, or ``None`` if no label is wrong.

    Example:
        >>> given, true = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 0, 0, 0])
        >>> memorized_fraction(torch.tensor([1, 2, 0, 0]), given=given, true=true)
        0.3333333333333333
    """
    wrong = given != true
    return float((predictions == given)[wrong].double().mean()) if wrong.any() else None

"""The share of wrong training labels that a network has memorized."""

from collections.abc import Callable

import torch
from torch import Tensor


def memorized_fraction(
    predictions: Tensor,
    *,
    given: Tensor,
    true: Tensor,
    all_reduce_sum: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> float | None:
    """Return the fraction of the wrong training labels that a network predicts.

    Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4, measure the same as the training
    error on corrupted labels. Labels that corruption happened to leave correct are not counted.

    Args:
        predictions: ``(n,)`` int64, the predicted classes of the training inputs.
        given: ``(n,)`` int64, the labels that the network was trained with.
        true: ``(n,)`` int64, the labels before corruption.
        all_reduce_sum: sums counts over processes, if each has some of the examples.

    Returns:
        A fraction, or ``None`` if no label is wrong.

    Example:
        >>> given, true = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 0, 0, 0])
        >>> memorized_fraction(torch.tensor([1, 2, 0, 0]), given=given, true=true)
        0.3333333333333333
    """
    wrong = given != true
    counts = torch.stack([((predictions == given) & wrong).sum(), wrong.sum()]).double()
    memorized, total = all_reduce_sum(counts).tolist()
    return memorized / total if total else None

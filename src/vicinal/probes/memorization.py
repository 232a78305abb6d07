"""Memorization: which wrong labels has a network learned by heart?"""

from collections.abc import Callable

import torch
from torch import Tensor


def reproduced(
    answers: Tensor,
    *,
    given: Tensor,
    true: Tensor,
    total: Callable[[Tensor], Tensor] = lambda counts: counts,
) -> float | None:
    """Return the share of the wrong training labels that a network answers with.

    Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4, ask the same of the training
    error on corrupted labels. A label that corruption left right, by chance, is not counted.

    Args:
        answers: ``(n,)`` int64, the network's classes for the training inputs.
        given: ``(n,)`` int64, the labels that it was trained with.
        true: ``(n,)`` int64, the labels before corruption.
        total: adds up numbers over all processes, where each has its share of the labels.

    Returns:
        A fraction, or ``None`` where no label is wrong.

    Example:
        >>> given, true = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 0, 0, 0])
        >>> reproduced(torch.tensor([1, 2, 0, 0]), given=given, true=true)
        0.3333333333333333
    """
    wrong = given != true
    counts = torch.stack([((answers == given) & wrong).sum(), wrong.sum()]).double()
    right, all_of_them = total(counts).tolist()
    return right / all_of_them if all_of_them else None

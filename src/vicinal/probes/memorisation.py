"""Memorisation: which wrong labels has a network learned by heart?"""

from torch import Tensor


def reproduced(answers: Tensor, *, given: Tensor, true: Tensor) -> float | None:
    """Return the share of the wrong training labels that a network answers with.

    Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4, ask the same of the training
    error on corrupted labels. A label that corruption left right, by chance, is not counted.

    Args:
        answers: ``(n,)`` int64, the network's classes for the training inputs.
        given: ``(n,)`` int64, the labels that it was trained with.
        true: ``(n,)`` int64, the labels before corruption.

    Returns:
        A fraction, or ``None`` where no label is wrong.

    Example:
        >>> import torch
        >>> given, true = torch.tensor([1, 2, 3, 4]), torch.tensor([1, 0, 0, 0])
        >>> reproduced(torch.tensor([1, 2, 0, 0]), given=given, true=true)
        0.3333333333333333
    """
    wrong = given != true
    if not bool(wrong.any()):
        return None
    return float((answers == given)[wrong].double().mean())

"""Labels corrupted on purpose, to see who learns them by heart."""

import numpy as np
import torch
from torch import Tensor


def corrupt_labels(labels: Tensor, *, rate: float, num_classes: int, seed: int) -> Tensor:
    """Return labels of which a fraction has been replaced by random ones.

    Symmetric noise as in Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4: the new
    label is drawn from *all* classes evenly, so one in ``num_classes`` happens to be right again.
    Compare with the true labels to see which ones are wrong.

    Args:
        labels: ``(n,)`` int64. Not modified.
        rate: fraction to replace, in ``[0, 1]``; exactly ``round(rate * n)`` are.
        num_classes: number of classes to draw from.
        seed: decides which labels are replaced, and by what.

    Example:
        >>> corrupt_labels(torch.zeros(8, dtype=torch.int64), rate=0.5, num_classes=10, seed=0)
        tensor([0, 0, 1, 6, 8, 0, 9, 0])
    """
    chance = np.random.default_rng(seed)
    chosen = chance.permutation(len(labels))[: round(rate * len(labels))]
    corrupted = labels.clone()
    corrupted[chosen] = torch.from_numpy(chance.integers(0, num_classes, len(chosen)))
    return corrupted

"""Label noise: replace labels at random."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class CorruptedLabels(NamedTuple):
    """Labels, some of which are random.

    Args:
        labels: ``(n,)`` int64.
        replaced: ``(n,)`` bool, which labels were drawn at random; some are correct by chance.
    """

    labels: Tensor
    replaced: Tensor


def corrupt_labels(labels: Tensor, *, rate: float, num_classes: int, seed: int) -> CorruptedLabels:
    """Replace a fraction of the labels with random ones.

    Symmetric noise as in Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.4: the new
    label is drawn uniformly from *all* classes, so one in ``num_classes`` is correct by chance.
    The same arguments give the same labels, so that the arms of a study share them.

    Args:
        labels: ``(n,)`` int64. Not modified.
        rate: fraction to replace, in ``[0, 1]``; exactly ``round(rate * n)`` labels.
        num_classes: number of classes to draw from.
        seed: seed of the rows and of their new labels.

    Example:
        >>> zeros = torch.zeros(8, dtype=torch.int64)
        >>> labels, replaced = corrupt_labels(zeros, rate=0.5, num_classes=10, seed=0)
        >>> labels.tolist(), int(replaced.sum())
        ([0, 0, 1, 6, 8, 0, 9, 0], 4)
    """
    chance = np.random.default_rng(seed)
    chosen = chance.permutation(len(labels))[: round(rate * len(labels))]
    corrupted = labels.clone()
    corrupted[chosen] = torch.from_numpy(chance.integers(0, num_classes, len(chosen)))
    replaced = torch.zeros(len(labels), dtype=torch.bool)
    replaced[chosen] = True
    return CorruptedLabels(corrupted, replaced)

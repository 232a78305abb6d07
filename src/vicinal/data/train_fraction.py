"""Keep a share of the training examples, as if there were fewer."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet
from vicinal.errors import UserError


def with_train_fraction(data: DataSet, train_fraction: float, seed: int) -> DataSet:
    """Return a data set with a random share of its training examples.

    Args:
        data: the data set. Its other splits are not changed.
        train_fraction: as for ``kept_rows``.
        seed: seed of the random choice.

    Raises:
        UserError: as ``kept_rows`` does.

    Example:
        >>> from vicinal.data import Split
        >>> split = Split(torch.zeros(20, 1), torch.tensor([0, 1] * 10))
        >>> data = with_train_fraction(DataSet(("cat", "dog"), split, split), 0.2, seed=0)
        >>> sorted(data.train.targets.tolist()), len(data.test)
        ([0, 0, 1, 1], 20)
    """
    train = data.train
    if train_fraction == 1 or not len(train):
        return data
    rows = kept_rows(train.targets, train_fraction, seed, train.groups, data.classes)
    kept = replace(train.subset(torch.from_numpy(rows)), skipped=train.skipped)
    return replace(data, train=kept)


def kept_rows(
    targets: Tensor,
    train_fraction: float,
    seed: int,
    groups: Tensor | None = None,
    classes: Sequence[str] = (),
) -> np.ndarray:
    """Return the rows of a random share of the examples, in order.

    The share is that of every class, rounded, but at least one example. With groups, whole groups
    are kept, about as many examples as the share.

    Args:
        targets: ``(n,)`` int64 classes, or real values or labels of any shape.
        train_fraction: the share, in ``(0, 1]``.
        seed: seed of the random choice.
        groups: ``(n,)`` int64, the group of each row.
        classes: names, for the error.

    Raises:
        UserError: if a class would have no example, since its groups are left out.

    Example:
        >>> kept_rows(torch.tensor([0] * 100 + [1] * 4), 0.02, seed=0).shape
        (3,)
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    has_classes = targets.dim() == 1 and not targets.is_floating_point()
    if groups is not None:
        ids, first, sizes = np.unique(groups.numpy()[order], return_index=True, return_counts=True)
        drawn = np.argsort(first)  # groups in a random order
        before = np.cumsum(sizes[drawn]) - sizes[drawn] / 2
        chosen = ids[drawn[before <= max(train_fraction * len(targets), before[0])]]
        rows = np.flatnonzero(np.isin(groups.numpy(), chosen))
        if has_classes and len(lost := np.setdiff1d(targets.numpy(), targets.numpy()[rows])):
            name = classes[lost[0]] if classes else lost[0]
            raise UserError(
                f"train_fraction: expected a share with an example of every class, got "
                f"{train_fraction}, which leaves out all groups of class {name!r}. Choose a larger "
                "one."
            )
        return rows
    labels = targets.numpy()[order] if has_classes else np.zeros(len(targets), dtype=np.int64)
    counts = np.bincount(labels)
    wanted = np.maximum(np.floor(train_fraction * counts + 0.5), counts > 0)
    by_class = np.argsort(labels, kind="stable")  # in a random order within each class
    place = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.sort(order[by_class[place < np.repeat(wanted, counts)]])

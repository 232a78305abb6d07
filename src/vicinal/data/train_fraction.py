"""Keep a share of the training examples, as if there were fewer."""

from dataclasses import replace

import torch

from vicinal.data.dataset import DataSet
from vicinal.data.train_test_split import train_test_rows


def with_train_fraction(data: DataSet, train_fraction: float, seed: int) -> DataSet:
    """Return a data set with a random share of its training examples.

    Args:
        data: the data set. Its other splits are not changed.
        train_fraction: share of every class that is kept, in ``(0, 1]``.
        seed: seed of the random choice.

    Raises:
        UserError: if a class would have no training example.

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
    rows, _ = train_test_rows(
        train.targets,
        fraction=1 - train_fraction,
        seed=seed,
        classes=data.classes,
        groups=train.groups,
        keep_small=True,
        held_out="left-out",
    )
    kept = replace(train.subset(torch.from_numpy(rows)), skipped=train.skipped)
    return replace(data, train=kept)

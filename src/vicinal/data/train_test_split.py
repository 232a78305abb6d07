"""The split of a data set that comes without a test split."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vicinal.errors import UserError


def train_test_rows(
    targets: Tensor, *, fraction: float, seed: int, classes: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Divide the rows of a set that comes in one split into rows to train on and to test on.

    Args:
        targets: ``(n,)`` int64 classes, of which both splits get the same share each; float32 real
            values are divided without looking at them.
        fraction: of the rows to test on, in ``(0, 1)``.
        seed: decides which rows these are.
        classes: names, for the error.

    Returns:
        Rows to train on and rows to test on, int64.

    Raises:
        UserError: if a split would be left without some class, or empty.

    Example:
        >>> import torch
        >>> train, test = train_test_rows(torch.tensor([0, 1] * 5), fraction=0.2, seed=0)
        >>> len(train), len(test)
        (8, 2)
    """
    from sklearn.model_selection import train_test_split

    stratify = None if targets.is_floating_point() else targets.numpy()  # floats are no classes
    try:
        train, test = train_test_split(
            np.arange(len(targets)), test_size=fraction, stratify=stratify, random_state=seed
        )
        if stratify is not None:
            for split in (train, test):
                if len(np.unique(stratify[split])) < len(np.unique(stratify)):
                    raise ValueError("a class is too small for its share")
    except ValueError as error:
        raise UserError(
            f"a test fraction of {fraction} cannot divide {len(targets)} examples so that every "
            f"class is in both splits; {_rarest(targets, classes)}try another fraction, or take "
            f"that class out ({error})"
        ) from error
    return train, test


def _rarest(targets: Tensor, classes: Sequence[str]) -> str:
    if targets.is_floating_point() or not len(targets):
        return ""
    counts = targets.bincount()
    rarest = int(counts.argmin())
    name = classes[rarest] if rarest < len(classes) else str(rarest)
    return f"class {name} has {int(counts[rarest])}; "

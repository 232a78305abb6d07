"""Split a data set that has no test split."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from vicinal.errors import UserError


def train_test_rows(
    targets: Tensor, *, fraction: float, seed: int, classes: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a data set that has no test split.

    Args:
        targets: ``(n,)``: int64 classes, of which both splits get the same share, or float32 real
            values, which are split at random.
        fraction: share of test rows, in ``(0, 1)``.
        seed: seed of the random split.
        classes: names, for the error.

    Returns:
        Training rows and test rows, int64.

    Raises:
        UserError: if a split would be empty or lack a class.

    Example:
        >>> import torch
        >>> train, test = train_test_rows(torch.tensor([0, 1] * 5), fraction=0.2, seed=0)
        >>> len(train), len(test)
        (8, 2)
    """
    from sklearn.model_selection import train_test_split

    stratify = (
        None if targets.is_floating_point() else targets.numpy()
    )  # real values are not classes
    try:
        train, test = train_test_split(
            np.arange(len(targets)), test_size=fraction, stratify=stratify, random_state=seed
        )
        if stratify is not None:
            for rows in (train, test):
                if len(np.unique(stratify[rows])) < len(np.unique(stratify)):
                    raise ValueError("a class is too small for its share")
    except ValueError as error:
        raise UserError(
            f"a test fraction of {fraction} cannot split {len(targets)} examples so that every "
            f"class is in both splits ({error}). {_rarest(targets, classes)}Try another fraction, "
            "or remove that class."
        ) from error
    return train, test


def _rarest(targets: Tensor, classes: Sequence[str]) -> str:
    if targets.is_floating_point() or not len(targets):
        return ""
    counts = targets.bincount()
    rarest = int(counts.argmin())
    name = classes[rarest] if rarest < len(classes) else str(rarest)
    return f"class {name} has {int(counts[rarest])}. "

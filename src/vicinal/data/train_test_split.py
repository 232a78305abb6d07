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

    labels = None if targets.is_floating_point() else targets.numpy()
    try:
        train, test = train_test_split(
            np.arange(len(targets)), test_size=fraction, stratify=labels, random_state=seed
        )
        if labels is not None:
            for rows in (train, test):
                if len(np.unique(labels[rows])) < len(np.unique(labels)):
                    raise ValueError("a class is too small for its share")
    except ValueError as error:
        rarest, needed = "", "both splits have examples"
        if labels is not None and len(labels):
            counts = np.bincount(labels)
            k = int(counts.argmin())
            name = classes[k] if k < len(classes) else k
            rarest = f" The smallest class, {name}, has {counts[k]}."
            needed = "both splits have every class"
        raise UserError(
            f"a test fraction of {fraction} cannot split {len(targets)} examples so that {needed}."
            f"{rarest} Try another fraction, or remove small classes."
        ) from error
    return train, test

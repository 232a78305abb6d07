"""Data sources: a short name in, arrays and class names out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vicinal.errors import UserError, unknown


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a data set, such as its training examples.

    Args:
        inputs: ``(n, channels, height, width)`` uint8.
        targets: ``(n,)`` int64 classes.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set in memory.

    Args:
        classes: the name of each class.
        train: what is learned from.
        test: what is asked about; never trained on.
        brightest: the value that stands for white, such as 255.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part
    brightest: int

    def standardised(self) -> tuple[Tensor, Tensor]:
        """Return the training and test inputs as float32 with the mean and the standard deviation
        of the *training* values taken out: zero and one for the training part.
        """
        train, test = self.train.inputs.float(), self.test.inputs.float()
        mean, deviation = train.mean(), train.std()
        return (train - mean) / deviation, (test - mean) / deviation


def load(source: str, *, test_fraction: float, seed: int) -> DataSet:
    """Load a data set by its short name.

    Args:
        source: one of ``SOURCES``.
        test_fraction: share of the examples to test on, in ``(0, 1)``, the same in every class.
        seed: decides which examples these are.

    Raises:
        UserError: if there is no such source, or the fraction leaves a part without some class.

    Example:
        >>> digits = load("digits", test_fraction=0.3, seed=0)
        >>> len(digits.train), len(digits.test), digits.train.inputs.shape[1:]
        (1257, 540, torch.Size([1, 8, 8]))
    """
    if source not in SOURCES:
        raise UserError(unknown("data source", source, SOURCES))
    return SOURCES[source](test_fraction, seed)


def _digits(test_fraction: float, seed: int) -> DataSet:
    """The 1,797 8x8 scans that come with scikit-learn: the test part of the UCI set "Optical
    Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), values 0 to 16.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    try:
        rows = train_test_split(
            np.arange(len(digits.target)),
            test_size=test_fraction,
            stratify=digits.target,
            random_state=seed,
        )
    except ValueError as error:
        raise UserError(
            f"data.test_fraction = {test_fraction} does not leave every class of the "
            f"{len(digits.target)} digits in both parts; try 0.3 ({error})"
        ) from error
    inputs = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    targets = torch.from_numpy(digits.target.astype(np.int64))
    train, test = (Part(inputs[chosen], targets[chosen]) for chosen in rows)
    return DataSet(tuple(str(name) for name in digits.target_names), train, test, brightest=16)


SOURCES: dict[str, Callable[[float, int], DataSet]] = {"digits": _digits}
"""The data sources by their short names."""

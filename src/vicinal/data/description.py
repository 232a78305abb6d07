"""What there is in a data set, in numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, Part

_SAMPLE = 10_000


def describe(data: DataSet) -> dict[str, Any]:
    """Return counts, shapes, class balance and ranges of values, ready for JSON.

    Values are those of the training part; of inputs in files, those of at most 10,000 evenly
    spaced examples, which ``looked_at`` says.

    Example:
        >>> from vicinal.data import load
        >>> described = describe(load("iris", test_fraction=0.2))
        >>> described["parts"]["train"]["count"], described["classes"][0]
        (120, 'setosa')
    """
    inputs, targets = data.train.inputs, data.train.targets
    looked_at = _sample(data.train)
    return {
        "classes": list(data.classes),
        "parts": {name: _part(part, len(data.classes)) for name, part in data.parts.items()},
        "inputs": {
            "shape": list(inputs.shape[1:]),
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "in_memory": isinstance(inputs, Tensor),
            "looked_at": len(looked_at),
            **_values(looked_at),
        },
        "targets": {
            "dtype": str(targets.dtype).removeprefix("torch."),
            "shape": list(targets.shape[1:]),
            "lowest": targets.min().item(),
            "highest": targets.max().item(),
        },
    }


def majority(data: DataSet) -> float:
    """Return the test accuracy of whoever always says the most frequent training class.

    Example:
        >>> from vicinal.data import load
        >>> majority(load("iris", test_fraction=0.2))
        0.3333333333333333
    """
    most = int(data.train.targets.bincount().argmax())
    return float((data.test.targets == most).double().mean())


def _part(part: Part, classes: int) -> dict[str, Any]:
    described: dict[str, Any] = {"count": len(part), "skipped": list(part.skipped)}
    if classes:
        described["of_each_class"] = part.targets.bincount(minlength=classes).tolist()
    return described


def _sample(part: Part) -> Tensor:
    rows = np.unique(np.linspace(0, len(part) - 1, min(_SAMPLE, len(part))).astype(np.int64))
    if isinstance(part.inputs, Tensor):
        return part.inputs
    return torch.cat([part.read(some.tolist()).inputs for some in _in_chunks(rows)])


def _in_chunks(rows: np.ndarray) -> Sequence[np.ndarray]:
    return np.array_split(rows, max(1, len(rows) // 256))


def _values(inputs: Tensor) -> dict[str, Any]:
    """Return range, mean and deviation: of each channel, or of all features together."""
    channels = inputs.split(1, dim=1) if inputs.ndim > 2 and inputs.shape[1] <= 4 else [inputs]
    moments = []
    for channel in channels:
        # In pieces, since a data set in float64 may not fit.
        pieces = [piece.double() for piece in channel.split(4096)]
        count = sum(piece.numel() for piece in pieces)
        mean = sum(float(piece.sum()) for piece in pieces) / count
        square = sum(float((piece - mean).square().sum()) for piece in pieces) / count
        moments.append((mean, square**0.5))
    return {
        "lowest": inputs.min().item(),
        "highest": inputs.max().item(),
        "mean": [mean for mean, _ in moments],
        "deviation": [deviation for _, deviation in moments],
    }

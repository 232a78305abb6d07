"""What there is in a data set, in numbers."""

from typing import Any

from torch import Tensor

from vicinal.data.dataset import DataSet, Split
from vicinal.data.input_statistics import Statistics, statistics


def describe(data: DataSet) -> dict[str, Any]:
    """Return counts, shapes, class balance and ranges of values, ready for JSON.

    Values are those of the training split; of inputs in files, those of at most 10,000 evenly
    spaced examples, which ``looked_at`` says.

    Example:
        >>> from vicinal.data import load
        >>> described = describe(load("iris", test_fraction=0.2))
        >>> described["splits"]["train"]["count"], described["classes"][0]
        (120, 'setosa')
    """
    inputs, targets = data.train.inputs, data.train.targets
    found = statistics(data.train)
    return {
        "classes": list(data.classes),
        "splits": {name: _split(split, len(data.classes)) for name, split in data.splits.items()},
        "inputs": {
            "shape": list(inputs.shape[1:]),
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "in_memory": isinstance(inputs, Tensor),
            "looked_at": found.looked_at,
            **_values(found, channels=len(inputs.shape) > 2 and inputs.shape[1] <= 4),
        },
        "notes": [{"text": note.text, "doubtful": note.doubtful} for note in data.notes],
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


def _split(split: Split, classes: int) -> dict[str, Any]:
    described: dict[str, Any] = {"count": len(split), "skipped": list(split.skipped)}
    if classes:
        described["of_each_class"] = split.targets.bincount(minlength=classes).tolist()
    return described


def _values(found: Statistics, *, channels: bool) -> dict[str, Any]:
    """Return range, mean and std: of each channel, or of all features together."""
    mean, std = found.mean, found.std
    if not channels:
        whole = mean.mean()
        std = (std.square() + (mean - whole).square()).mean().sqrt()[None]
        mean = whole[None]
    return {
        "lowest": found.lowest,
        "highest": found.highest,
        "mean": mean.tolist(),
        "std": std.tolist(),
    }

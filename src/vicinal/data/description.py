"""Describe a data set by counts and statistics, and warn if results on it would be doubtful."""

from typing import Any

from torch import Tensor

from vicinal.data.dataset import DataSet, Note, Split
from vicinal.data.normalize import combined, statistics
from vicinal.errors import UserError

_FEW = 20  # test examples, of which each changes the accuracy by 5 points or more
_COPIES = 0.01  # the share of test examples from which on copies are reported
_ROWS = 16  # examples of a split in files that are compared


def describe(data: DataSet) -> dict[str, Any]:
    """Return counts, shapes, class balance and ranges of values, ready for JSON.

    Values are those of the training split. Inputs in files are sampled: ``looked_at`` is the
    number of examples that were read.

    Example:
        >>> from vicinal.data import load
        >>> described = describe(load("iris", test_fraction=0.2))
        >>> described["splits"]["train"]["count"], described["classes"][0]
        (120, 'setosa')
    """
    inputs, targets = data.train.inputs, data.train.targets
    found = statistics(data.train)
    if len(inputs.shape) < 3 or inputs.shape[1] > 4:
        found = combined(found)
    splits: dict[str, Any] = {}
    for name, split in data.splits.items():
        splits[name] = {"count": len(split), "skipped": list(split.skipped)}
        if data.classes:
            counts = split.targets.bincount(minlength=len(data.classes))
            splits[name]["of_each_class"] = counts.tolist()
    return {
        "classes": list(data.classes),
        "splits": splits,
        "inputs": {
            "shape": list(inputs.shape[1:]),
            "dtype": str(inputs.dtype).removeprefix("torch."),
            "in_memory": isinstance(inputs, Tensor),
            "looked_at": found.examples,
            "lowest": found.lowest,
            "highest": found.highest,
            "mean": found.mean.tolist(),
            "std": found.std.tolist(),
        },
        "notes": [{"text": note.text, "doubtful": note.doubtful} for note in data.notes],
        "targets": {
            "dtype": str(targets.dtype).removeprefix("torch."),
            "shape": list(targets.shape[1:]),
            "lowest": targets.min().item(),
            "highest": targets.max().item(),
            "zero_or_one": bool(((targets == 0) | (targets == 1)).all()),
        },
    }


def doubtful_notes(data: DataSet) -> tuple[Note, ...]:
    """Return notes on missing classes, small test splits, constant values and copies of examples.

    Example:
        >>> import torch
        >>> split = Split(torch.ones(2, 1), torch.tensor([0, 0]))
        >>> [note.text for note in doubtful_notes(DataSet(("cat", "dog"), split, split))]
        ['the train split has no example of 1 of 2 classes: dog', \
'the test split has no example of 1 of 2 classes: dog', \
'all training examples are of one class, cat', 'the test split has only 2 examples', \
'all training inputs are the same']
    """
    notes = []
    if data.classes:
        for name, split in data.splits.items():
            if not len(split):  # the training split of a data set to test on
                continue
            counts = split.targets.bincount(minlength=len(data.classes))
            missing = [data.classes[k] for k in (counts == 0).nonzero().flatten().tolist()]
            if missing:
                more = ", ..." if len(missing) > 5 else ""
                notes.append(
                    f"the {name} split has no example of {len(missing)} of {len(data.classes)} "
                    f"classes: {', '.join(missing[:5])}{more}"
                )
        present = data.train.targets.unique().tolist()
        if len(present) == 1:
            notes.append(f"all training examples are of one class, {data.classes[present[0]]}")
    elif len(train := data.train.targets) and bool((train == train[0]).all()):
        notes.append(f"all training targets are the same, {train[0].tolist()}")
    if len(data.test) < _FEW:
        notes.append(f"the test split has only {_counted(len(data.test))}")
    shape, floats = tuple(data.train.inputs.shape[1:]), data.train.inputs.dtype.is_floating_point
    if floats and len(shape) == 3 and shape[2] in (1, 3) and shape[0] not in (1, 3):
        notes.append(
            f"inputs of shape {shape} are read as (channels, height, width). If the channels are "
            "last, transpose them, or store the images as uint8"
        )
    if is_constant(data.train):
        notes.append("all training inputs are the same")
    elif (copies := _copies(data)) > _COPIES * len(data.test):
        notes.append(
            f"{copies:,} of {len(data.test):,} test examples have the same inputs as a training "
            "example. If they are copies, results on them say little about new examples: remove "
            "them, or keep copies together in one split"
        )
    return tuple(Note(text, doubtful=True) for text in notes)


def _copies(data: DataSet) -> int:
    """Return how many test examples equal a training example.

    0 for inputs in files, and for rows of numbers, which are often equal by chance.
    """
    train, test = data.train.inputs, data.test.inputs
    if not (isinstance(train, Tensor) and isinstance(test, Tensor)):
        return 0
    if train.dim() < 3 and data.preparation.get("kind") not in ("sound", "text"):
        return 0
    known = {hash(row.tobytes()) for row in train.cpu().numpy()}
    return sum(hash(row.tobytes()) in known for row in test.cpu().numpy())


def _counted(count: int) -> str:
    return "1 example" if count == 1 else f"{count} examples"


def is_constant(split: Split) -> bool:
    """Return whether all inputs are equal; if they are in files, a sample of them is compared."""
    inputs = split.inputs
    if not isinstance(inputs, Tensor):
        try:
            inputs = split.read(range(0, len(split), -(-len(split) // _ROWS))).inputs
        except UserError:  # a damaged example, which training will report
            return False
    if len(split) < 2 or len(inputs) < 2 or not bool((inputs[0] == inputs[-1]).all()):
        return False
    return all(bool((piece == inputs[:1]).all()) for piece in inputs.split(1024))

"""Cut a validation split from the training examples, and check that splits share no group."""

from dataclasses import replace

import numpy as np
import torch

from vicinal.data.dataset import DataSet, Note
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError


def with_validation(data: DataSet, fraction: float, seed: int) -> DataSet:
    """Return a data set with a validation split, a share of its training examples.

    A data set that has a validation split keeps it, with a note.

    Args:
        data: the data set. Its test split is not changed.
        fraction: share of the training examples, from 0 to below 1. 0 cuts nothing.
        seed: seed of the random split.

    Raises:
        UserError: if a split would be empty.

    Example:
        >>> from vicinal.data import Split
        >>> split = Split(torch.zeros(10, 1), torch.tensor([0, 1] * 5))
        >>> data = with_validation(DataSet(("cat", "dog"), split, split), 0.2, seed=0)
        >>> {name: sorted(split.targets.tolist()) for name, split in data.splits.items()}
        {'train': [0, 0, 0, 0, 1, 1, 1, 1], 'validation': [0, 1], \
'test': [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]}
    """
    train = data.train
    if not fraction or not len(train):
        return data
    if data.validation is not None:
        note = Note("the validation split is that of the data set, so no other one was drawn")
        return replace(data, notes=(*data.notes, note))
    rows = train_test_rows(
        train.targets,
        fraction=fraction,
        seed=seed,
        classes=data.classes,
        groups=train.groups,
        keep_small=True,
        held_out="validation",
    )
    kept, held_out = (train.subset(torch.from_numpy(chosen)) for chosen in rows)
    return replace(data, train=replace(kept, skipped=train.skipped), validation=held_out)


def group_notes(data: DataSet) -> tuple[Note, ...]:
    """Report the groups of the splits.

    Raises:
        UserError: if a group is in two splits.

    Example:
        >>> from vicinal.data import Split
        >>> x = torch.zeros(4, 1)
        >>> train, test = (Split(x, x, groups=torch.tensor(ids)) for ids in ([0, 0, 1, 1], [2] * 4))
        >>> [note.text for note in group_notes(DataSet((), train, test))]
        ['groups: 2 in the train split, 1 in the test split, none in two splits']
    """
    found = {
        name: np.unique(split.groups.numpy())
        for name, split in data.splits.items()
        if split.groups is not None and len(split)
    }
    if not found:
        return ()
    names = list(found)
    for first, second in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        if len(shared := np.intersect1d(found[first], found[second])):
            raise UserError(
                f"group: expected each group in one split, got {len(shared)} of the "
                f"{len(found[second])} groups of the {second} split in the {first} split as well. "
                "Move their examples to one split, or remove the option group."
            )
    examples = sum(len(data.splits[name]) for name in names)
    if sum(map(len, found.values())) == examples:
        return (
            Note(
                f"each of the {examples:,} examples is a group of its own, so the option group "
                "changes nothing",
                doubtful=True,
            ),
        )
    counts = ", ".join(f"{len(ids):,} in the {name} split" for name, ids in found.items())
    return (Note(f"groups: {counts}, none in two splits"),)

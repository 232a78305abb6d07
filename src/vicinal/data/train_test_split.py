"""Cut test and validation splits, keep a share of the training examples, and check groups."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, Split
from vicinal.errors import UserError

_DRAWS = 100  # random splits of groups that are compared
_CLOSE = 0.25  # the difference from a class's share of the test split that is accepted at once
_BINS = 10  # of real-valued targets, the most


def train_test_rows(
    targets: Tensor,
    *,
    fraction: float,
    seed: int,
    classes: Sequence[str] = (),
    groups: Tensor | None = None,
    fold: tuple[int, int] | None = None,
    keep_small: bool = False,
    held_out: str = "test",
) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a data set that has no test split.

    Classes are stratified: each has the same share in both splits. Real values are split at random
    by ``fraction``; folds stratify them by quantiles. Rows of a group are in the same split. As
    groups differ in size, up to 100 random splits are tried until the test share of each class is
    close to ``fraction``; if none is, the closest split is used.

    Args:
        targets: ``(n,)`` int64 classes, or ``(n,)`` or ``(n, k)`` float32 real values.
        fraction: share of test rows, in ``(0, 1)``.
        seed: seed of the random split.
        classes: names, for the error.
        groups: ``(n,)`` int64, the group of each row.
        fold: ``(k, folds)``: the test rows are the ``k``-th part, from 0, of ``folds`` parts of
            about equal size, and ``fraction`` is ignored. Parts depend on ``seed`` only.
        keep_small: whether the rows of classes that are too small for both splits are training
            rows, instead of an error.
        held_out: name of the second split, for the error.

    Returns:
        Training rows and test rows, int64.

    Raises:
        UserError: if a split would be empty or lack a class; with groups, if the training split
            would lack a class.

    Example:
        >>> train, test = train_test_rows(torch.tensor([0, 1] * 5), fraction=0.2, seed=0)
        >>> len(train), len(test)
        (8, 2)
        >>> owner = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
        >>> _, test = train_test_rows(owner % 2, fraction=0.2, seed=0, groups=owner, fold=(1, 2))
        >>> owner[test].tolist()
        [0, 0, 3, 3]
    """
    from sklearn.model_selection import train_test_split

    labels = None if targets.is_floating_point() else targets.numpy()
    ids = None if groups is None or _all_differ(groups) else groups.numpy()
    small = np.zeros(len(targets), dtype=bool)
    if keep_small and labels is not None:
        small = _too_small(labels, ids, fewest_examples(fraction, fold))
    rest = np.flatnonzero(~small)
    try:
        if ids is None and fold is None:
            strata = None if labels is None else labels[rest]
            train, test = train_test_split(
                rest, test_size=fraction, stratify=strata, random_state=seed
            )
        else:
            fewest = fewest_examples(fraction, fold)
            strata = (_quantiles(targets, fewest) if labels is None else labels)[rest]
            own = None if ids is None else ids[rest]
            train, test = (rest[rows] for rows in _parts(strata, own, fraction, seed, fold))
        train = np.concatenate([train, np.flatnonzero(small)])
        if not (len(train) and len(test)):
            raise ValueError("a split is empty")
        if labels is not None and (
            _lacks_a_class(labels[train], labels)
            # A test split of whole groups may lack a class, which a note reports.
            or (ids is None and _lacks_a_class(labels[test], labels[rest]))
        ):
            raise ValueError("a class is too small for its share")
    except ValueError as error:
        how, advice = f"a {held_out} fraction of {fraction}", "another fraction"
        if fold is not None:
            how, advice = f"{fold[1]} folds", "fewer folds"
        reason, small_ones = _reason(labels, ids, classes)
        raise UserError(
            f"{how} cannot split {len(targets)} examples so that {reason} Try {advice}, or "
            f"{small_ones}."
        ) from error
    return train, test


def rows_by_options(
    targets: Tensor, options: LoadOptions, classes: Sequence[str], groups: Tensor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split the rows of a data set that has no test split as the options of ``load`` say."""
    fraction, seed, fold = options.test_fraction, options.seed, options.fold
    return train_test_rows(
        targets, fraction=fraction, seed=seed, classes=classes, groups=groups, fold=fold
    )


def divided(whole: Split, first: np.ndarray, second: np.ndarray) -> tuple[Split, Split]:
    """Return two splits made from one; the first keeps the messages of skipped examples."""
    kept, held_out = (whole.subset(torch.from_numpy(rows)) for rows in (first, second))
    return replace(kept, skipped=whole.skipped), held_out


def fewest_examples(fraction: float, fold: tuple[int, int] | None = None) -> int:
    """Return the fewest rows of a class that surely have one in each split.

    Example:
        >>> fewest_examples(0.2), fewest_examples(0.7), fewest_examples(0.2, (0, 10))
        (5, 4, 10)
    """
    return fold[1] if fold else math.ceil(1 / min(fraction, 1 - fraction))


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
    train, validation = divided(train, *rows)
    return replace(data, train=train, validation=validation)


def group_notes(data: DataSet) -> tuple[Note, ...]:
    """Report the groups of the splits.

    Raises:
        UserError: if a group is in two splits.

    Example:
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


def with_train_fraction(data: DataSet, train_fraction: float, seed: int) -> DataSet:
    """Return a data set with a random share of its training examples.

    Args:
        data: the data set. Its other splits are not changed.
        train_fraction: as for ``kept_rows``.
        seed: seed of the random choice.

    Raises:
        UserError: as ``kept_rows`` does.

    Example:
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


def _parts(
    strata: np.ndarray,
    ids: np.ndarray | None,
    fraction: float,
    seed: int,
    fold: tuple[int, int] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and test rows of a fold, or of a split of groups."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if fold is None:
        assert ids is not None
        return _split_of_groups(strata, ids, fraction, seed)
    if ids is None and np.unique(strata, return_counts=True)[1].min() < fold[1]:
        raise ValueError("some folds would lack a class")
    splitter: Any = StratifiedKFold if ids is None else StratifiedGroupKFold
    with warnings.catch_warnings():  # that a class is in few rows; its absence raises an error
        warnings.simplefilter("ignore", UserWarning)
        folds = splitter(fold[1], shuffle=True, random_state=seed).split(strata, strata, ids)
        train, test = list(folds)[fold[0]]
    return train, test


def _split_of_groups(
    strata: np.ndarray, ids: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split whole groups so that the share of each stratum is close to ``fraction``."""
    from sklearn.model_selection import GroupShuffleSplit

    strata = np.unique(strata, return_inverse=True)[1]
    counts = np.bincount(strata)
    best, least = None, (True, np.inf)
    draws = GroupShuffleSplit(_DRAWS, test_size=fraction, random_state=seed)
    for train, test in draws.split(strata, strata, ids):
        tested = np.bincount(strata[test], minlength=len(counts))
        off = float(np.abs(tested / counts - fraction).max())
        badness = (bool((tested == counts).any()), off)
        if best is None or badness < least:
            best, least = (train, test), badness
        if least <= (False, _CLOSE * min(fraction, 1 - fraction)):
            break
    assert best is not None
    return best


def _quantiles(targets: Tensor, fewest: int) -> np.ndarray:
    """Return which of up to ten quantiles each real value is in; vectors are not divided."""
    if targets.ndim > 1:
        return np.zeros(len(targets), dtype=np.int64)
    bins = max(1, min(_BINS, len(targets) // fewest))
    ranks = targets.argsort(stable=True).argsort()
    return (ranks * bins // len(targets)).numpy()


def _all_differ(groups: Tensor) -> bool:
    return len(groups.unique()) == len(groups)


def _too_small(labels: np.ndarray, ids: np.ndarray | None, fewest: int) -> np.ndarray:
    """Return which rows are of a class with too few rows, or in the only group of a class."""
    if ids is None:
        return np.array((np.bincount(labels) < fewest)[labels])
    pairs = np.unique(np.stack([labels, ids], 1), axis=0)
    only = np.bincount(pairs[:, 0])[pairs[:, 0]] < 2
    return np.isin(ids, pairs[only, 1])


def _lacks_a_class(labels: np.ndarray, expected: np.ndarray) -> bool:
    return len(np.unique(labels)) < len(np.unique(expected))


def _reason(
    labels: np.ndarray | None, ids: np.ndarray | None, classes: Sequence[str]
) -> tuple[str, str]:
    """Return what cannot be fulfilled and why, and what to remove."""
    if ids is not None:
        count = len(np.unique(ids))
        if labels is None or not len(labels):
            return f"both splits have groups. There are {count}.", "add groups"
        pairs = np.unique(np.stack([labels, ids], 1), axis=0)
        in_groups = np.bincount(pairs[:, 0], minlength=labels.max() + 1)
        k = int(np.where(in_groups > 0, in_groups, count + 1).argmin())
        return (
            f"the training split has every class and both splits have groups. There are {count} "
            f"groups, and the class {_named(k, classes)} is in {in_groups[k]} of them.",
            "group by another column",
        )
    if labels is None or not len(labels):
        return "both splits have examples.", "add examples"
    counts = np.bincount(labels)
    k = int(np.where(counts > 0, counts, len(labels) + 1).argmin())
    smallest = f"The smallest class, {_named(k, classes)}, has {counts[k]}."
    return f"both splits have every class. {smallest}", "remove small classes"


def _named(k: int, classes: Sequence[str]) -> str:
    return classes[k] if k < len(classes) else str(k)

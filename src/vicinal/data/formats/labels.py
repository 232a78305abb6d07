"""Labels that are not among the classes of a data set, or that may be read as something else."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import Note, SkippedExamples, Split
from vicinal.errors import UserError


def rows_with_known_labels(
    labels: np.ndarray,
    known: Sequence[int],
    where: Callable[[int], str],
    skipped: SkippedExamples,
    hint: str = "",
) -> np.ndarray:
    """Return the rows whose label is known; the others are skipped or raise an error.

    Errors name the file and place of a row by ``where``, and what to try by ``hint``.

    Raises:
        UserError: if a label is unknown and is not skipped, or if no row is left.
    """
    fits = np.isin(labels, known)
    for row in np.flatnonzero(~fits).tolist():
        expected = f"expected a label of the {len(known)} classes, got {labels[row]}"
        skipped(UserError(f"{where(row)}: {expected}.{hint}"))
    if not fits.any():
        first = "".join(skipped.sentences[:1])
        raise UserError(f"Expected examples of {len(known)} classes, got none. {first}")
    return np.flatnonzero(fits)


def split_with_known_labels(
    inputs: Tensor,
    labels: np.ndarray,
    known: Sequence[int],
    where: Callable[[int], str],
    skip_bad: bool,
) -> Split:
    """Return a split of the examples whose label is known; ``known[k]`` becomes class ``k``.

    Example:
        >>> labels, where = np.array([5, 7, 6]), "labels.bin, row {}".format
        >>> split = split_with_known_labels(torch.zeros(3, 1), labels, [5, 6], where, True)
        >>> split.targets.tolist(), split.skipped
        ([0, 1], ('labels.bin, row 1: expected a label of the 2 classes, got 7.',))
    """
    skipped = SkippedExamples(skip_bad)
    rows = rows_with_known_labels(labels, known, where, skipped)
    class_of = {label: k for k, label in enumerate(known)}
    targets = torch.tensor([class_of[label] for label in labels[rows].tolist()])
    kept = inputs if len(rows) == len(labels) else inputs[torch.from_numpy(rows)]
    return Split(kept, targets, tuple(skipped.sentences))


def target_notes(targets: np.ndarray) -> list[Note]:
    """Return a warning about real-valued training targets that may be classes.

    Example:
        >>> [note.text for note in target_notes(np.array([0.0, 1.0, 1.0, 0.0]))]
        ['the training targets are floats with 2 different integers, and are read as real values. \
If they are classes, make them integers']
    """
    if targets.dtype.kind != "f" or not targets.size:
        return []
    different = len(np.unique(targets))
    if targets.ndim == 2 and targets.shape[1] > 1:
        if np.isin(targets, (0, 1)).all() and bool((targets.sum(1) == 1).all()):
            text = (
                "the training targets have one 1 in each row and are read as several labels per "
                "example. If they are one-hot classes, make them integers with argmax(1)"
            )
            return [Note(text, doubtful=True)]
    elif bool((targets == np.floor(targets)).all()) and different <= min(20, targets.size // 2):
        text = (
            f"the training targets are floats with {different} different integers, and are read as "
            "real values. If they are classes, make them integers"
        )
        return [Note(text, doubtful=True)]
    return []

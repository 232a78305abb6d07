"""Labels that are not among the classes of a data set."""

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from vicinal.data.dataset import LoadOptions, SkippedExamples, Split
from vicinal.errors import UserError


def split_with_known_labels(
    inputs: Tensor,
    targets: Tensor,
    classes: int,
    where: Callable[..., str],
    load_options: LoadOptions,
    *,
    stored: Sequence[int] | np.ndarray | None = None,
) -> Split:
    """Return a split of the examples whose label is one of the classes.

    Args:
        inputs: ``(n, ...)``.
        targets: ``(n,)`` int64.
        classes: number of classes.
        where: names the file and place of a row, for errors.
        load_options: whether other examples are skipped.
        stored: the labels in the file, where they are not the targets.

    Raises:
        UserError: for the first label that is not a class, unless such examples are skipped; if
            no example is left.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> split = split_with_known_labels(
        ...     torch.zeros(3, 1),
        ...     torch.tensor([0, 7, 1]),
        ...     2,
        ...     "labels.bin, row {}".format,
        ...     LoadOptions(Path(), skip_bad=True),
        ... )
        >>> split.targets.tolist(), split.skipped
        ([0, 1], ('labels.bin, row 1: expected a label of the 2 classes, got 7',))
    """
    fits = (targets >= 0) & (targets < classes)
    if bool(fits.all()):
        return Split(inputs, targets)
    skipped = SkippedExamples(load_options.skip_bad)
    for row in (~fits).nonzero().flatten().tolist():
        skipped(
            UserError(
                f"{where(row)}: expected a label of the {classes} classes, got "
                f"{int((targets if stored is None else stored)[row])}"
            )
        )
    if not bool(fits.any()):
        raise UserError(f"no label is one of the {classes} classes; {skipped.sentences[0]}")
    return Split(inputs[fits], targets[fits], tuple(skipped.sentences))

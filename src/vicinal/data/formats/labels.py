"""Labels that are no class of the data set: refused, or left out."""

from collections.abc import Callable

from torch import Tensor

from vicinal.data.dataset import LoadOptions, SkippedExamples, Split
from vicinal.errors import UserError


def fitting(
    inputs: Tensor, targets: Tensor, classes: int, say: Callable[[int], str], wanted: LoadOptions
) -> Split:
    """Return a split without the examples whose label is not one of the classes.

    Args:
        inputs: ``(n, ...)``.
        targets: ``(n,)`` int64.
        classes: how many there are.
        say: what is wrong with the label of a row.
        wanted: whether such examples are left out.

    Raises:
        UserError: for the first such example, unless they are to be left out; if none is left.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> part = fitting(
        ...     torch.zeros(3, 1),
        ...     torch.tensor([0, 7, 1]),
        ...     2,
        ...     lambda row: f"row {row}: no class",
        ...     LoadOptions(Path(), on_bad="skip"),
        ... )
        >>> part.targets.tolist(), part.skipped
        ([0, 1], ('row 1: no class',))
    """
    fits = (targets >= 0) & (targets < classes)
    if bool(fits.all()):
        return Split(inputs, targets)
    skips = SkippedExamples(wanted.on_bad)
    for row in (~fits).nonzero().flatten().tolist():
        skips(UserError(say(row)))
    if not bool(fits.any()):
        raise UserError(f"no label is that of a class; {skips.sentences[0]}")
    return Split(inputs[fits], targets[fits], tuple(skips.sentences))

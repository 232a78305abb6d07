"""What the targets of a blend are, and the union of multi-label targets."""

import functools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from vicinal.mixing.losses import Side, spread
from vicinal.mixing.plain import is_plain

TargetMode = Literal["weighted", "union", "own"]
"""The targets of a blend: those of its parents by their shares, all labels of its parents, or those
of the example itself."""


def check_target_mode(where: str, mode: str) -> None:
    """Raise unless this is a target mode; ``where`` begins the message."""
    if mode not in get_args(TargetMode):
        raise ValueError(f'{where}="weighted", "union" or "own", got {mode!r}.')


def union_of_targets(sides: Sequence[Side]) -> Tensor:
    """Return the sum of the targets of all sides with a share above 0, at most 1.

    It has the type of the targets: booleans stay booleans.

    Raises:
        ValueError: if the targets are not multi-label: boolean, or floating point from 0 to 1 with
            two dimensions or more.

    Example:
        >>> own, partner = torch.tensor([[1.0, 0.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.2]])
        >>> union_of_targets([Side(own, torch.ones(1)), Side(partner, torch.ones(1))]).tolist()
        [[1.0, 0.0, 0.699999988079071]]
    """
    for y, _ in sides:
        _check_multi_label(y)
    present = [torch.where(spread(share, y) > 0, y, False) for y, share in sides]
    total = functools.reduce(torch.add, present)  # of booleans, whether one of them is True
    return total if total.dtype == torch.bool else total.clamp(max=1)


def _check_multi_label(y: Tensor) -> None:
    if y.dtype == torch.bool:
        return
    found = f"got {y.dtype} of shape {tuple(y.shape)}"
    if not y.dtype.is_floating_point:
        raise ValueError(
            f'y: expected multi-label targets for targets="union", {found}. Pass y.float() if '
            "these are zeros and ones (batch, classes). For integer classes, use "
            'targets="weighted", or pass F.one_hot(y, num_classes).float().'
        )
    if y.dim() < 2:
        raise ValueError(
            f'y: expected multi-label targets (batch, classes) for targets="union", {found}. For '
            'real values, use targets="weighted". Pass y.bool() if these are zeros and ones.'
        )
    if is_plain(y) and not bool(((y >= 0) & (y <= 1)).all()):
        low, high = y.min().item(), y.max().item()
        raise ValueError(
            f'y: expected multi-label targets from 0 to 1 for targets="union", got {low:g} to '
            f'{high:g}. For real values, use targets="weighted".'
        )

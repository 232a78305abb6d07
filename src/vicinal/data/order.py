"""The order of the rows of a split in an epoch, decided by the seed and the epoch."""

import torch
from torch import Tensor

from vicinal.mixing import generator_at

ORDER = 1
"""The stream of ``generator_at`` that orders are drawn from; mixing draws from 0."""


def epoch_order(count: int, *, seed: int, epoch: int, shuffle: bool | int = True) -> Tensor:
    """Return the order of the rows of a split in an epoch, ``(count,)`` int64.

    Args:
        count: number of rows.
        seed: as for ``Loader``.
        epoch: number of the epoch, from 0.
        shuffle: as for ``Loader``.

    Example:
        >>> epoch_order(8, seed=0, epoch=0, shuffle=3)
        tensor([1, 0, 2, 5, 4, 7, 3, 6])
    """
    if not shuffle:
        return torch.arange(count)
    generator = generator_at(seed, epoch, stream=ORDER)
    if shuffle is True or shuffle >= count:
        return torch.randperm(count, generator=generator)
    # A buffer of the next rows: one is drawn and replaced by the row that follows the buffer.
    buffer = list(range(shuffle))
    drawn = torch.randint(shuffle, (count - shuffle,), generator=generator).tolist()
    order = []
    for following, place in enumerate(drawn, shuffle):
        order.append(buffer[place])
        buffer[place] = following
    rest = torch.randperm(shuffle, generator=generator).tolist()
    return torch.tensor(order + [buffer[place] for place in rest])


def balanced_order(labels: Tensor, *, seed: int, epoch: int) -> Tensor:
    """Return rows in which every class occurs equally often, ``(n,)`` int64, in a random order.

    There are as many rows as labels; if the classes do not divide them evenly, some classes, chosen
    at random, get one row more. Rows of small classes are repeated and some of large classes are
    missing, but within a class, no row is drawn again before all others were drawn equally often.
    Classes without rows are ignored.

    Args:
        labels: ``(n,)`` int64.
        seed: as for ``Loader``.
        epoch: number of the epoch, from 0.

    Example:
        >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
        >>> labels[balanced_order(labels, seed=0, epoch=0)].bincount()
        tensor([3, 3])
    """
    generator = generator_at(seed, epoch, stream=ORDER)
    of_classes = labels.argsort(stable=True).split(labels.unique(return_counts=True)[1].tolist())
    each, left = divmod(len(labels), len(of_classes) or 1)
    one_more = torch.randperm(len(of_classes), generator=generator) < left
    drawn = []
    for rows, more in zip(of_classes, one_more.tolist(), strict=True):
        count = each + more
        rounds = -(-count // len(rows))
        shuffled = torch.rand(rounds, len(rows), generator=generator, dtype=torch.float64).argsort()
        drawn.append(rows[shuffled].flatten()[:count])
    order = torch.cat(drawn) if drawn else labels
    return order[torch.randperm(len(order), generator=generator)]

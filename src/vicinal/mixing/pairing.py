"""Pairings: rules that choose a partner for each row of a batch."""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import torch
from torch import Generator, Tensor

from vicinal.mixing.randomness import CPU, named


class Pairing(Protocol):
    """A callable that returns a partner for each of ``size`` rows, ``(size,)`` int64.

    A pairing may have a method ``rows(size, mix_rate)`` that returns how many rows are mixed.
    """

    def __call__(
        self,
        size: int,
        generator: Generator | None = None,
        *,
        y: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Choose the partners, with ``generator``, or PyTorch's global generator if None.

        Pairings that need them get ``y`` or ``features`` of the rows, ``(size, ...)``.
        """
        ...


@dataclass(frozen=True)
class Shuffle:
    """Pair the rows by a random permutation.

    This is the pairing of Zhang et al. (https://arxiv.org/abs/1710.09412), end of section 2: one
    loader, and a shuffled copy of its batch.

    Args:
        meet_self: whether a row may be its own partner, as happens to one row of a batch on
            average. If not, all permutations without a fixed point are equally likely; the only
            row of a batch of one is its own partner.

    Example:
        >>> Shuffle()(4, torch.Generator().manual_seed(0)).sort().values.tolist()
        [0, 1, 2, 3]
    """

    meet_self: bool = True

    def __call__(self, size: int, generator: Generator | None = None, **_: object) -> Tensor:
        """Return a uniformly drawn permutation of ``size`` rows."""
        partner = torch.randperm(size, generator=generator, device=CPU)
        if not self.meet_self and size > 1:
            own = torch.arange(size, device=CPU)
            while bool((partner == own).any()):  # e = 2.7 draws on average
                partner = torch.randperm(size, generator=generator, device=CPU)
        return partner


@dataclass(frozen=True)
class Reverse:
    """Pair row ``i`` with row ``size - 1 - i``; the middle row of an odd batch is its own partner.

    It uses no random numbers: the loader shuffles the rows. The rows form pairs, so
    ``MixUp(..., per="pair")`` gives both rows of a pair the same lam.

    Example:
        >>> Reverse()(5).tolist()
        [4, 3, 2, 1, 0]
    """

    def __call__(self, size: int, generator: Generator | None = None, **_: object) -> Tensor:
        """Return the row indices from last to first."""
        return torch.arange(size - 1, -1, -1, device=CPU)


@dataclass(frozen=True)
class Halves:
    """Pair the first half of the rows with the second half, as the MXNet MixUp layer does.

    Row ``i`` and row ``size // 2 + i`` are partners; the last row of an odd batch is its own.
    As in that layer (github.com/hdjsjyl/mixup), ``MixUp(..., per="example")`` gives both their own
    lam, and the number of rows that are mixed is ``mix_rate * size``, rounded down to an integer
    and then up to an even one.

    Example:
        >>> Halves()(5).tolist()
        [2, 3, 0, 1, 4]
        >>> Halves().rows(10, mix_rate=0.7)
        8
    """

    def __call__(self, size: int, generator: Generator | None = None, **_: object) -> Tensor:
        """Return the row indices with the halves exchanged."""
        half = size // 2
        own = torch.arange(size, device=CPU)
        return torch.cat([own[half : 2 * half], own[:half], own[2 * half :]])

    def rows(self, size: int, mix_rate: float) -> int:
        """Return how many of the first rows are mixed: an even number, or all of an odd batch."""
        count = int(mix_rate * size)
        return min(count + count % 2, size)


@dataclass(frozen=True)
class SameClass:
    """Pair each row with a row of its own class, by a random permutation within each class.

    The ablation "SC" of Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.8. Needs ``y``:
    ``policy.draw(len(y), y=y)`` with ``(size,)`` integer classes. A row alone in its class is its
    own partner.

    Example:
        >>> y = torch.tensor([0, 1, 0, 1])
        >>> y[SameClass()(4, y=y)].tolist()
        [0, 1, 0, 1]
    """

    def __call__(
        self, size: int, generator: Generator | None = None, *, y: Tensor | None = None, **_: object
    ) -> Tensor:
        """Return a permutation that leaves the classes in place."""
        classes = _classes(y, size, "SameClass")
        one, two = (torch.randperm(size, generator=generator, device=CPU) for _ in range(2))
        partner = torch.empty(size, dtype=torch.int64, device=CPU)
        partner[one[classes[one].argsort(stable=True)]] = two[classes[two].argsort(stable=True)]
        return partner


@dataclass(frozen=True)
class DifferentClass:
    """Pair each row with a random row of another class.

    Needs ``y``: ``policy.draw(len(y), y=y)`` with ``(size,)`` integer classes. All rows of other
    classes are equally likely, so partners are not a permutation. If all rows have one class, they
    are their own partners.

    Example:
        >>> y = torch.tensor([0, 1, 1, 1])
        >>> y[DifferentClass()(4, y=y)].tolist()
        [1, 0, 0, 0]
    """

    def __call__(
        self, size: int, generator: Generator | None = None, *, y: Tensor | None = None, **_: object
    ) -> Tensor:
        """Return rows of other classes."""
        _, classes, counts = _classes(y, size, "DifferentClass").unique(
            return_inverse=True, return_counts=True
        )
        if len(counts) < 2:
            return torch.arange(size, device=CPU)
        by_class = classes.argsort(stable=True)
        own = counts[classes]
        start = (counts.cumsum(0) - counts)[classes]
        drawn = torch.rand(size, dtype=torch.float64, device=CPU, **named(generator))
        drawn = drawn * (size - own)
        place = drawn.long()
        partner: Tensor = by_class[place + own * (place >= start)]
        return partner


@dataclass(frozen=True)
class Nearest:
    """Pair each row with one of its ``k`` nearest neighbors, all equally likely.

    The ablation "KNN" of Zhang et al. (https://arxiv.org/abs/1710.09412), section 3.8. Needs
    ``features``: ``policy.draw(len(x), features=f)`` with ``(size, ...)`` numbers, compared by
    Euclidean distance, for example the inputs themselves. Partners are not a permutation. The only
    row of a batch is its own partner; ``k`` above ``size - 1`` means all other rows.

    Args:
        k: number of neighbors, from 1.

    Example:
        >>> Nearest(k=1)(4, features=torch.tensor([0.0, 1.0, 5.0, 7.0])).tolist()
        [1, 0, 3, 2]
    """

    k: int = 5

    def __post_init__(self) -> None:
        """Check the number of neighbors."""
        if not isinstance(self.k, Integral) or self.k < 1:
            raise ValueError(f"Nearest: expected k, a number of neighbors, from 1, got {self.k}.")

    def __call__(
        self,
        size: int,
        generator: Generator | None = None,
        *,
        features: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        """Return near rows."""
        points = _finite(features, size, "Nearest", "features")
        if size < 2:
            return torch.arange(size, device=CPU)
        distances = _distances(points).fill_diagonal_(math.inf)
        near = distances.topk(min(self.k, size - 1), largest=False).indices
        chosen = torch.randint(near.shape[1], (size, 1), generator=generator, device=CPU)
        return near.gather(1, chosen).flatten()


@dataclass(frozen=True)
class SimilarTargets:
    """Pair rows more often the closer their real-valued targets are.

    Row ``i`` is paired with another row ``j`` with a probability proportional to
    ``exp(-|y[i] - y[j]|**2 / (2 * bandwidth**2))``: Yao et al., "C-Mixup: Improving Generalization
    in Regression" (https://arxiv.org/abs/2210.05775), section 3. Needs ``y``:
    ``policy.draw(len(y), y=y)`` with ``(size, ...)`` real values. Partners are not a permutation;
    the only row of a batch is its own partner.

    Args:
        bandwidth: distance of targets at which rows still are often paired, above 0, in the unit
            of the targets. ``math.inf`` makes all other rows equally likely.

    Example:
        >>> y = torch.tensor([0.0, 0.1, 5.0, 5.1])
        >>> SimilarTargets(bandwidth=0.1)(4, y=y).tolist()
        [1, 0, 3, 2]
    """

    bandwidth: float

    def __post_init__(self) -> None:
        """Check the bandwidth."""
        if not self.bandwidth > 0:
            raise ValueError(f"SimilarTargets: expected bandwidth above 0, got {self.bandwidth}.")

    def __call__(
        self, size: int, generator: Generator | None = None, *, y: Tensor | None = None, **_: object
    ) -> Tensor:
        """Return rows with similar targets."""
        values = _finite(y, size, "SimilarTargets", "y")
        if size < 2:
            return torch.arange(size, device=CPU)
        distances = _distances(values) / self.bandwidth
        # softmax is relative to the nearest row, so exp does not underflow for rows far from all.
        odds = (-(distances**2) / 2).fill_diagonal_(-math.inf).softmax(1)
        return odds.multinomial(1, generator=generator).flatten()


@dataclass(frozen=True)
class OtherBatch:
    """Pair each row with a row of a second batch, from another loader or another rank.

    Pass that batch to the plan: ``plan.mix(x, other)``, ``plan.loss(criterion, output, y,
    other=other_y)``. No row of it is used twice before each has been used once.

    Args:
        batch: number of rows of the second batch, from 1.

    Example:
        >>> OtherBatch(batch=2)(4).sort().values.tolist()
        [0, 0, 1, 1]
    """

    batch: int

    def __post_init__(self) -> None:
        """Check the size of the second batch."""
        if not isinstance(self.batch, Integral) or self.batch < 1:
            raise ValueError(f"OtherBatch: expected a batch of 1 row or more, got {self.batch}.")

    def __call__(self, size: int, generator: Generator | None = None, **_: object) -> Tensor:
        """Return rows of the second batch."""
        rounds = -(-size // self.batch)
        several = [
            torch.randperm(self.batch, generator=generator, device=CPU) for _ in range(rounds)
        ]
        return torch.cat([torch.empty(0, dtype=torch.int64, device=CPU), *several])[:size]


def _described(values: Tensor | None, size: int, pairing: str, name: str) -> Tensor:
    if values is None:
        raise ValueError(f"{pairing}: expected {name}. Call policy.draw(len(x), {name}={name}).")
    if values.dim() == 0 or len(values) != size:
        raise ValueError(
            f"{pairing}: expected {name} of {size} rows, got shape {tuple(values.shape)}."
        )
    return values


def _finite(values: Tensor | None, size: int, pairing: str, name: str) -> Tensor:
    values = _described(values, size, pairing, name)
    if values.is_floating_point() and not bool(values.isfinite().all()):
        raise ValueError(
            f"{pairing}: expected finite {name}, to compute distances, got NaN or infinity in "
            f"{int((~values.reshape(size, -1).isfinite()).any(1).sum())} of {size} rows. Replace "
            "missing values, or leave these rows out of the batch."
        )
    return values


def _distances(rows: Tensor) -> Tensor:
    """Return the Euclidean distance of each row to each row, ``(size, size)`` float64, on the CPU.

    The fast formula, ``|a|**2 + |b|**2 - 2 * a @ b``, is inaccurate for rows that are close to each
    other but far from zero, such as years. So the mean is subtracted first, and if rows are still
    too close, distances are computed from the differences.
    """
    rows = rows.detach().cpu().double().reshape(len(rows), -1)
    centered = rows - rows.mean(0)
    distances = torch.cdist(centered, centered, compute_mode="use_mm_for_euclid_dist")
    closest = distances.fill_diagonal_(math.inf).min()
    # Squares have an error of about 1e-16 of the largest. This is true for inf and nan too.
    if not closest > 1e-4 * centered.norm(dim=1).max():
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(0)


def _classes(y: Tensor | None, size: int, pairing: str) -> Tensor:
    values = _described(y, size, pairing, "y")
    if values.dim() != 1 or values.dtype.is_floating_point:
        raise ValueError(
            f"{pairing}: expected y as (batch,) integer classes, got {values.dtype} of shape "
            f"{tuple(values.shape)}. For soft labels, pass y.argmax(1)."
        )
    return values.cpu()

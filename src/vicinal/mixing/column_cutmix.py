"""CutMix over the columns of a table."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from vicinal.mixing.pairing import Pairing, Shuffle
from vicinal.mixing.plan import Plan
from vicinal.mixing.randomness import CPU, named
from vicinal.mixing.region_policies import DrawsRegions
from vicinal.mixing.regions import kept_share
from vicinal.mixing.sampling import Per, Request, draw_beta
from vicinal.mixing.target_modes import TargetMode


@dataclass(frozen=True)
class ColumnCutMix(DrawsRegions):
    """Take random columns of a table from the partner; lam is the share of the columns that stay.

    For inputs ``(batch, features)`` of any type, also category codes, which cannot be blended.
    Somepalli et al., "SAINT: Improved Neural Networks for Tabular Data via Row Attention and
    Contrastive Pre-Training" (https://arxiv.org/abs/2106.01342), section 4, mix rows of tables in
    this way for pre-training, with a fixed probability for each column. Here, as in ``CutMix``, lam
    is drawn from ``Beta(alpha, alpha)`` first, then set to the share that really stays. Since the
    order of columns means nothing, all choices of as many columns are equally likely.

    ``draw`` expects ``image_size=x.shape[1:]``. Targets are those of whole rows, blended by lam.

    Args:
        alpha: as for ``MixUp``.
        mix_rate: as for ``MixUp``.
        per: what shares lam and columns, as for ``MixUp``.
        pairing: the rule that chooses the partners.
        groups: one integer for each column of the input: columns with the same number stay
            together, such as the one-hot columns of one category. lam is then the share of groups
            that stay. Without it, each column is a group.
        targets: as for ``MixUp``.

    Raises:
        TypeError: if ``groups`` has something else than integers.
        ValueError: as for ``MixUp``; in ``draw``, if ``image_size`` is not ``(features,)`` or
            ``groups`` has a different length.

    Example:
        >>> policy = ColumnCutMix(float("inf"), groups=[0, 1, 1, 1])
        >>> plan = policy.draw(2, image_size=(4,))
        >>> plan.lam.tolist()
        [0.5, 0.5]
        >>> shown = plan.mix(torch.tensor([[10, 11, 12, 13], [20, 21, 22, 23]]))
        >>> bool((shown[:, 1:].diff() == 1).all())
        True
    """

    alpha: float | tuple[float, float] = 1.0
    mix_rate: float = 1.0
    per: Per = "example"
    pairing: Pairing = field(default_factory=Shuffle)
    groups: Sequence[int] | None = None
    targets: TargetMode = "weighted"

    _columns = True

    def __post_init__(self) -> None:
        """Check the settings; ``groups`` becomes a tuple."""
        super().__post_init__()
        if self.groups is None:
            return
        try:
            groups = tuple(operator.index(group) for group in self.groups)
        except TypeError:
            raise TypeError(
                "ColumnCutMix: expected groups as one integer for each column, such as (0, 1, 1), "
                f"got {self.groups!r}."
            ) from None
        object.__setattr__(self, "groups", groups)

    def _plan(self, request: Request) -> Plan:
        size = request.image_size
        if size is None or isinstance(size, int) or len(size) != 1:
            raise ValueError(
                "ColumnCutMix: expected image_size as (features,), for inputs (batch, features), "
                f"got {size}. Call policy.draw(len(x), image_size=x.shape[1:]). For images and "
                "signals, use CutMix."
            )
        if self.groups is not None and len(self.groups) != size[0]:
            raise ValueError(
                f"ColumnCutMix: expected groups with one integer for each of {size[0]} columns, "
                f"got {len(self.groups)}. Pass the groups of the columns after one-hot encoding."
            )
        return super()._plan(request)

    def _regions(self, count: int, sizes: tuple[int, ...], generator: Generator | None) -> Tensor:
        groups = range(sizes[0]) if self.groups is None else self.groups
        numbers = {group: k for k, group in enumerate(dict.fromkeys(groups))}
        taken = ((1 - draw_beta(self.alpha, count, generator)) * len(numbers)).round()
        noise = torch.rand(count, len(numbers), dtype=torch.float64, device=CPU, **named(generator))
        chosen = noise.argsort(1) < taken[:, None]  # argsort gives a random permutation
        return _columns_of(chosen, [numbers[group] for group in groups])

    def _kept_share(self, region: Tensor) -> Tensor:
        if self.groups is None:
            return kept_share(region)
        one_of_each = {group: column for column, group in enumerate(self.groups)}
        return kept_share(_columns_of(region, list(one_of_each.values())))


def _columns_of(values: Tensor, columns: list[int]) -> Tensor:
    return values.index_select(1, torch.tensor(columns, dtype=torch.int64, device=CPU))

"""Policies that show the partner in a region of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vicinal.mixing.pairing import Pairing, Shuffle
from vicinal.mixing.plan import Plan, trusted_plan
from vicinal.mixing.randomness import CPU
from vicinal.mixing.regions import boxes, kept_share, low_frequency_masks
from vicinal.mixing.sampling import (
    Per,
    check_alpha,
    check_pairing,
    check_per,
    check_rate,
    draw_beta,
    draw_partners,
    groups,
    raise_on_call,
)


@dataclass(frozen=True)
class CutMix:
    """Show a box of the partner's image; lam is the share of the pixels that are left.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers"
    (https://arxiv.org/abs/1905.04899), section 3. A first lam is drawn from ``Beta(alpha, alpha)``;
    the box takes ``sqrt(1 - lam)`` of the height and of the width, its center falls anywhere, and
    what lies outside the image is cut off: lam is then set to the share that really stays.

    ``image_size`` may have any number of dimensions: the region is a segment of a signal
    ``(length,)``, a rectangle of an image ``(height, width)`` or a box of a volume ``(depth,
    height, width)``, whose sides take ``(1 - lam) ** (1 / dimensions)``. Dimensions of size 1 are
    taken whole and not counted, so ``(1, length)`` is a signal too.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        mix_rate: as for ``MixUp``.
        per: what shares lam and box, as for ``MixUp``.
        pairing: the rule that chooses the partners.

    Example:
        >>> plan = CutMix(alpha=1.0).draw(2, image_size=(8, 8))
        >>> mixed = plan.mix(torch.eye(2)[:, :, None, None].expand(-1, -1, 8, 8))
        >>> bool(torch.isclose(mixed[0, 0].mean(), plan.lam[0]) | (plan.partner[0] == 0))
        True
    """

    alpha: float | tuple[float, float] = 1.0
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    __call__ = raise_on_call

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        check_alpha("CutMix", self.alpha)
        check_rate("CutMix", self.mix_rate)
        check_per("CutMix", self.per)
        check_pairing("CutMix", self.pairing)

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a plan; see ``Policy.draw``. Needs ``image_size``."""
        sizes = _sizes("CutMix", image_size)
        rate = self.mix_rate if self.alpha else 0
        partner, mixed, reach = draw_partners(
            self.pairing, size, rate, generator, y=y, features=features
        )
        group = groups(self.per, partner[:mixed])
        count = int(group.max()) + 1 if mixed else 0
        dimensions = max(1, sum(size > 1 for size in sizes))
        side = (1 - draw_beta(self.alpha, count, generator)) ** (1 / dimensions)
        centers = torch.rand(
            len(sizes), count, dtype=torch.float64, generator=generator, device=CPU
        )
        extent = torch.tensor(sizes, dtype=torch.float64, device=CPU)[:, None]
        lengths = (side * extent).round()
        if max(sizes) > 1:
            lengths = lengths.where(extent > 1, 1)
        starts = (centers * extent - lengths / 2).round().long()
        region = boxes(starts, starts + lengths.long(), sizes)
        return _region_plan(region, group, partner, size, reach)


@dataclass(frozen=True)
class ResizeMix:
    """Show the whole partner, made smaller, in a box; lam is the share of the pixels that are left.

    Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels"
    (https://arxiv.org/abs/2012.11101), section 3: the box takes ``tau`` of the height and of the
    width, ``tau`` drawn evenly from a range, and falls anywhere inside the image.

    Args:
        scale: lowest and highest ``tau``, in ``[0, 1]``; the paper uses (0.1, 0.8).
        mix_rate: as for ``MixUp``.
        per: what shares the box, as for ``MixUp``.
        pairing: the rule that chooses the partners.

    Example:
        >>> plan = ResizeMix(scale=(0.5, 0.5)).draw(3, image_size=(8, 8))
        >>> plan.lam.tolist()
        [0.75, 0.75, 0.75]
    """

    scale: tuple[float, float] = (0.1, 0.8)
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    __call__ = raise_on_call

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        low, high = self.scale
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"ResizeMix needs scale as (lowest, highest) from 0 to 1, got {self.scale}."
            )
        check_rate("ResizeMix", self.mix_rate)
        check_per("ResizeMix", self.per)
        check_pairing("ResizeMix", self.pairing)

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a plan; see ``Policy.draw``. Needs ``image_size``."""
        height, width = _height_and_width("ResizeMix", image_size)
        partner, mixed, reach = draw_partners(
            self.pairing, size, self.mix_rate, generator, y=y, features=features
        )
        group = groups(self.per, partner[:mixed])
        count = int(group.max()) + 1 if mixed else 0
        low, high = self.scale
        tau, down, along = torch.rand(
            3, count, dtype=torch.float64, generator=generator, device=CPU
        )
        tau = low + (high - low) * tau
        rows, columns = (tau * height).round().long(), (tau * width).round().long()
        top = (down * (height - rows + 1)).long()
        left = (along * (width - columns + 1)).long()
        starts, lengths = torch.stack([top, left]), torch.stack([rows, columns])
        region = boxes(starts, starts + lengths, (height, width))
        return _region_plan(region, group, partner, size, reach, shrunk=True)


@dataclass(frozen=True)
class FMix:
    """Show the partner in random regions of low frequency; lam is the share of pixels left.

    Harris et al., "FMix: Enhancing Mixed Sample Data Augmentation"
    (https://arxiv.org/abs/2002.12047), section 4: lam is drawn from ``Beta(alpha, alpha)``, and
    of a gray noise, whose amplitude falls with frequency, the highest ``1 - lam`` are cut out.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        decay: power by which the amplitude falls with frequency, from 0; the paper uses 3.
        mix_rate: as for ``MixUp``.
        per: what shares lam and region, as for ``MixUp``.
        pairing: the rule that chooses the partners.

    Example:
        >>> plan = FMix(alpha=math.inf).draw(3, image_size=(8, 8))
        >>> plan.lam.tolist(), plan.region.shape
        ([0.5, 0.5, 0.5], torch.Size([1, 8, 8]))
    """

    alpha: float | tuple[float, float] = 1.0
    decay: float = 3.0
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    __call__ = raise_on_call

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        check_alpha("FMix", self.alpha)
        check_rate("FMix", self.mix_rate)
        check_per("FMix", self.per)
        check_pairing("FMix", self.pairing)
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"FMix needs decay from 0 on, got {self.decay}.")

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a plan; see ``Policy.draw``. Needs ``image_size``."""
        height, width = _height_and_width("FMix", image_size)
        rate = self.mix_rate if self.alpha else 0
        partner, mixed, reach = draw_partners(
            self.pairing, size, rate, generator, y=y, features=features
        )
        group = groups(self.per, partner[:mixed])
        lam = draw_beta(self.alpha, int(group.max()) + 1 if mixed else 0, generator)
        region = low_frequency_masks(
            lam, height=height, width=width, decay=self.decay, generator=generator
        )
        return _region_plan(region, group, partner, size, reach)


def _region_plan(
    region: Tensor, group: Tensor, partner: Tensor, size: int, reach: int, *, shrunk: bool = False
) -> Plan:
    """Return a plan in which the first rows, ``len(group)``, have the region of their group."""
    lam = torch.ones(size, dtype=torch.float32, device=CPU)
    if len(group) == size and len(region) == 1:
        return trusted_plan(
            reach,
            partner=partner,
            lam=kept_share(region).repeat(size),
            region=region,
            shrunk=shrunk,
        )
    shown = torch.zeros(size, *region.shape[1:], dtype=torch.bool, device=CPU)
    shown[: len(group)] = region[group]
    lam[: len(group)] = kept_share(region)[group]
    return trusted_plan(reach, partner=partner, lam=lam, region=shown, shrunk=shrunk)


def _sizes(policy: str, image_size: Sequence[int] | None) -> tuple[int, ...]:
    if image_size is None:
        raise ValueError(
            f"{policy} needs image_size, such as (height, width): "
            "policy.draw(len(x), image_size=x.shape[2:])."
        )
    if isinstance(image_size, int) or len(image_size) == 0 or min(image_size) < 1:
        raise ValueError(
            f"{policy} needs image_size as (height, width), or one size for each dimension, from 1 "
            f"on, got {image_size}."
        )
    return tuple(int(size) for size in image_size)


def _height_and_width(policy: str, image_size: Sequence[int] | None) -> tuple[int, int]:
    sizes = _sizes(policy, image_size)
    if len(sizes) != 2:
        raise ValueError(
            f"{policy} mixes images and needs image_size as (height, width), got {sizes}; CutMix "
            "takes signals and volumes too."
        )
    return sizes[0], sizes[1]

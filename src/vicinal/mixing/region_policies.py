"""Policies that show the partner in a region of the image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from vicinal.mixing.pairing import Pairing, Shuffle
from vicinal.mixing.plan import Plan
from vicinal.mixing.randomness import CPU, named
from vicinal.mixing.regions import boxes, kept_share, low_frequency_masks
from vicinal.mixing.sampling import (
    DrawsPlans,
    Per,
    Request,
    check_settings,
    draw_beta,
    draw_partners,
    groups,
    with_each_parent_once,
)
from vicinal.mixing.target_modes import TargetMode


class DrawsRegions(DrawsPlans[Plan]):
    """The base of policies that draw a region: they define ``_regions``."""

    mix_rate: float
    per: Per
    pairing: Pairing
    targets: TargetMode
    _shrunk: ClassVar[bool] = False
    _columns: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings."""
        check_settings(self)

    def _regions(self, count: int, sizes: tuple[int, ...], generator: Generator | None) -> Tensor:
        """Draw ``(count, *sizes)`` bool regions."""
        raise NotImplementedError

    def _kept_share(self, region: Tensor) -> Tensor:
        """Return lam for each region, ``(count,)`` float32."""
        return kept_share(region)

    def _plan(self, request: Request) -> Plan:
        sizes, size = _sizes(self, request.image_size), request.size
        rate = self.mix_rate if getattr(self, "alpha", 1.0) else 0  # ResizeMix has no alpha
        partner, mixed = draw_partners(self.pairing, rate, request)
        group, count = groups(self.per, partner[:mixed])
        region = self._regions(count, sizes, request.generator)
        whole = torch.ones(size - mixed, dtype=torch.float32, device=CPU)
        lam = torch.cat([self._kept_share(region)[group], whole])
        union = self.targets == "union"
        if union:
            shares = torch.stack([lam, 1 - lam])
            lam = with_each_parent_once(partner[None], shares, self.pairing)[0]
        if union or mixed < size or count != 1:  # otherwise all rows share one region
            nothing = torch.zeros(size - mixed, *sizes, dtype=torch.bool, device=CPU)
            region = torch.cat([region[group], nothing])
        if union:  # with a second batch, a row whose lam is 1 would show another example
            region &= (lam < 1).reshape(-1, *[1] * len(sizes))
        return Plan(
            partner,
            lam,
            region=region,
            shrunk=self._shrunk,
            columns=self._columns,
            target_mode=self.targets,
        )


@dataclass(frozen=True)
class CutMix(DrawsRegions):
    """Show a box of the partner's image; lam is the share of the pixels that stay.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
    Features" (https://arxiv.org/abs/1905.04899), section 3. A first lam is drawn from
    ``Beta(alpha, alpha)``; the box takes ``sqrt(1 - lam)`` of the height and of the width, its
    center falls anywhere, and what lies outside the image is cut off: lam is then set to the share
    that really stays.

    ``image_size`` may have any number of dimensions: the region is a segment of a signal
    ``(length,)``, a rectangle of an image ``(height, width)`` or a box of a volume ``(depth,
    height, width)``, whose sides take ``(1 - lam) ** (1 / dimensions)``. Dimensions of size 1 are
    taken whole and not counted, so ``(1, length)`` is a signal too.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        mix_rate: as for ``MixUp``.
        per: what shares lam and box, as for ``MixUp``.
        pairing: the rule that chooses the partners.
        targets: as for ``MixUp``.

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
    targets: TargetMode = "weighted"

    def _regions(self, count: int, sizes: tuple[int, ...], generator: Generator | None) -> Tensor:
        dimensions = max(1, sum(size > 1 for size in sizes))
        side = (1 - draw_beta(self.alpha, count, generator)) ** (1 / dimensions)
        centers = torch.rand(len(sizes), count, dtype=torch.float64, device=CPU, **named(generator))
        extent = torch.tensor(sizes, dtype=torch.float64, device=CPU)[:, None]
        lengths = (side * extent).round()
        if max(sizes) > 1:
            lengths = lengths.where(extent > 1, 1)
        starts = (centers * extent - lengths / 2).round().long()
        return boxes(starts, starts + lengths.long(), sizes)


@dataclass(frozen=True)
class ResizeMix(DrawsRegions):
    """Show the whole partner, made smaller, in a box; lam is the share of the pixels that stay.

    Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels"
    (https://arxiv.org/abs/2012.11101), section 3: the box takes ``tau`` of the height and of the
    width, ``tau`` drawn evenly from a range, and falls anywhere inside the image.

    Args:
        scale: lowest and highest ``tau``, in ``[0, 1]``; the paper uses (0.1, 0.8).
        mix_rate: as for ``MixUp``.
        per: what shares the box, as for ``MixUp``.
        pairing: the rule that chooses the partners.
        targets: as for ``MixUp``.

    Example:
        >>> plan = ResizeMix(scale=(0.5, 0.5)).draw(3, image_size=(8, 8))
        >>> plan.lam.tolist()
        [0.75, 0.75, 0.75]
    """

    scale: tuple[float, float] = (0.1, 0.8)
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)
    targets: TargetMode = "weighted"

    _shrunk = True

    def __post_init__(self) -> None:
        """Check the settings."""
        scale = self.scale if isinstance(self.scale, Sequence) else ()
        if len(scale) != 2 or not 0 <= scale[0] <= scale[1] <= 1:
            raise ValueError(
                f"ResizeMix: expected scale as (lowest, highest) from 0 to 1, got {self.scale}."
            )
        super().__post_init__()

    def _regions(self, count: int, sizes: tuple[int, ...], generator: Generator | None) -> Tensor:
        height, width = _height_and_width(self, sizes)
        low, high = self.scale
        tau, down, along = torch.rand(3, count, dtype=torch.float64, device=CPU, **named(generator))
        tau = low + (high - low) * tau
        rows, columns = (tau * height).round().long(), (tau * width).round().long()
        top = (down * (height - rows + 1)).long()
        left = (along * (width - columns + 1)).long()
        starts, lengths = torch.stack([top, left]), torch.stack([rows, columns])
        return boxes(starts, starts + lengths, sizes)


@dataclass(frozen=True)
class FMix(DrawsRegions):
    """Show the partner in random regions of low frequency; lam is the share of pixels that stay.

    Harris et al., "FMix: Enhancing Mixed Sample Data Augmentation"
    (https://arxiv.org/abs/2002.12047), section 4: lam is drawn from ``Beta(alpha, alpha)``, and a
    gray image from noise whose amplitude falls with frequency. The partner shows in its brightest
    pixels, a share of ``1 - lam``.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        decay: power by which the amplitude falls with frequency, from 0; the paper uses 3.
        mix_rate: as for ``MixUp``.
        per: what shares lam and region, as for ``MixUp``.
        pairing: the rule that chooses the partners.
        targets: as for ``MixUp``.

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
    targets: TargetMode = "weighted"

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 <= self.decay < math.inf:
            raise ValueError(f"FMix: expected a finite decay of 0 or more, got {self.decay}.")
        super().__post_init__()

    def _regions(self, count: int, sizes: tuple[int, ...], generator: Generator | None) -> Tensor:
        height, width = _height_and_width(self, sizes)
        lam = draw_beta(self.alpha, count, generator)
        return low_frequency_masks(
            lam, height=height, width=width, decay=self.decay, generator=generator
        )


def _sizes(policy: object, image_size: Any) -> tuple[int, ...]:
    name = type(policy).__name__
    if image_size is None:
        raise ValueError(
            f"{name}: expected image_size, such as (height, width). Call "
            "policy.draw(len(x), image_size=x.shape[2:])."
        )
    if isinstance(image_size, int) or len(image_size) == 0 or min(image_size) < 1:
        raise ValueError(
            f"{name}: expected image_size as (height, width), or one size from 1 for each "
            f"dimension, got {image_size}."
        )
    return tuple(int(size) for size in image_size)


def _height_and_width(policy: object, sizes: tuple[int, ...]) -> tuple[int, int]:
    if len(sizes) != 2:
        raise ValueError(
            f"{type(policy).__name__}: expected image_size as (height, width), got {sizes}. For "
            "signals and volumes, use CutMix."
        )
    return sizes[0], sizes[1]

"""Policies: what is drawn from. All chance of the mixing core happens in ``draw``."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from vicinal.mixing.operator import check_reach
from vicinal.mixing.pairing import OtherBatch, Pairing, Shuffle
from vicinal.mixing.plan import CleanAndMixed, Plan, trusted_plan
from vicinal.mixing.regions import boxes, clouds, kept_share

Per = Literal["batch", "pair", "example"]


class Policy(Protocol):
    """Anything to draw plans from."""

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw who meets whom in a batch of ``size`` examples, and how much each keeps.

        Args:
            size: number of examples, from 0.
            generator: a CPU generator, such as ``generator_at(seed, step)``; without one torch's
                global generator is used, so ``torch.manual_seed`` alone makes a run repeatable.
                In a loader's worker process that is the worker's own, which its seed decides.
            y: ``(size, ...)`` targets, for pairings that look at them.
            features: ``(size, ...)`` numbers, for pairings that look at them.
            image_size: (height, width) of the pictures, for policies that draw a region.

        Returns:
            A plan on the CPU; ``plan.to(device)`` moves it, and the methods of a plan follow the
            device of what they are given.
        """
        ...


@dataclass(frozen=True)
class MixUp:
    """Blend whole examples, with lam drawn from ``Beta(alpha, alpha)``.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (https://arxiv.org/abs/1710.09412),
    section 2; ``mix_rate`` follows the MXNet MixUp layer.

    Args:
        alpha: strength, from 0 to infinity. 0 is empirical risk minimisation: nothing is mixed.
            Near 0 most examples stay almost whole; 1 makes all shares equally likely; with
            ``math.inf`` every blend is half and half. Two numbers, both above 0 and finite, draw
            from the asymmetric ``Beta(first, second)``: (2, 1) keeps two thirds on average.
        mix_rate: fraction of the batch that is mixed, in ``[0, 1]``. It concerns the first
            ``round(mix_rate * size)`` rows, which meet among themselves; the others stay as they
            are. Shuffle the batch, as loaders do, and chance decides who is among the first.
        per: who shares a lam: the whole ``"batch"`` (as in the paper's code), each ``"pair"`` of
            rows that are each other's partners (needs a pairing that makes pairs, such as
            ``Reverse``; rows without such a bond draw alone), or nobody: every ``"example"`` alone.
        pairing: who meets whom.
        keep_larger: whether an example always keeps the larger share: lam becomes
            ``max(lam, 1 - lam)``, and is never below one half.

    Raises:
        ValueError: if ``alpha`` is negative or NaN, ``mix_rate`` outside ``[0, 1]`` or ``per`` not
            one of the three words.

    Example:
        >>> plan = MixUp(alpha=1.0, mix_rate=0.5).draw(4)
        >>> plan.partner[2:].tolist(), plan.lam[2:].tolist()
        ([2, 3], [1.0, 1.0])
    """

    alpha: float | tuple[float, float]
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)
    keep_larger: bool = False

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        _check_alpha("MixUp", self.alpha)
        _check_rate("MixUp", self.mix_rate)
        _check_per("MixUp", self.per)
        _check_pairing("MixUp", self.pairing)

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a plan; see ``Policy.draw``."""
        mixed = _mixed_rows(self.pairing, size, self.mix_rate if self.alpha else 0)
        partner, reach = _partners(self.pairing, size, mixed, generator, y=y, features=features)
        lam = _shared(self.alpha, self.per, partner[:mixed], generator)
        if self.keep_larger:
            lam = torch.maximum(lam, 1 - lam)
        if mixed < size:
            lam = torch.cat([lam, torch.ones(size - mixed)])
        return trusted_plan(reach, partner=partner, lam=lam)


@dataclass(frozen=True)
class CutMix:
    """Show a box of the partner's picture; lam is the share of the pixels that are left.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers"
    (https://arxiv.org/abs/1905.04899), section 3. A first lam is drawn from ``Beta(alpha, alpha)``;
    the box takes ``sqrt(1 - lam)`` of the height and of the width, its centre falls anywhere, and
    what lies outside the picture is cut off: lam is then set to the share that really stays.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        mix_rate: as for ``MixUp``.
        per: who shares lam and box.
        pairing: who meets whom.

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

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        _check_alpha("CutMix", self.alpha)
        _check_rate("CutMix", self.mix_rate)
        _check_per("CutMix", self.per)
        _check_pairing("CutMix", self.pairing)

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
        height, width = _image_size("CutMix", image_size)
        mixed = _mixed_rows(self.pairing, size, self.mix_rate if self.alpha else 0)
        partner, reach = _partners(self.pairing, size, mixed, generator, y=y, features=features)
        bond = _bonds(self.per, partner[:mixed])
        count = int(bond.max()) + 1 if mixed else 0
        side = (1 - draw_beta(self.alpha, count, generator)).sqrt()
        rows, columns = (side * height).round().long(), (side * width).round().long()
        y_centre, x_centre = torch.rand(2, count, dtype=torch.float64, generator=generator)
        top = (y_centre * height - rows / 2).round().long()
        left = (x_centre * width - columns / 2).round().long()
        region = boxes(top, top + rows, left, left + columns, height=height, width=width)
        return _region_plan(region, bond, partner, size, reach)


@dataclass(frozen=True)
class ResizeMix:
    """Show the whole partner, made smaller, in a box; lam is the share of the pixels that are left.

    Qin et al., "ResizeMix: Mixing Data with Preserved Object Information and True Labels"
    (https://arxiv.org/abs/2012.11101), section 3: the box takes ``tau`` of the height and of the
    width, ``tau`` drawn evenly from a range, and falls anywhere inside the picture.

    Args:
        scale: lowest and highest ``tau``, in ``[0, 1]``; the paper uses (0.1, 0.8).
        mix_rate: as for ``MixUp``.
        per: who shares the box.
        pairing: who meets whom.

    Example:
        >>> plan = ResizeMix(scale=(0.5, 0.5)).draw(3, image_size=(8, 8))
        >>> plan.lam.tolist()
        [0.75, 0.75, 0.75]
    """

    scale: tuple[float, float] = (0.1, 0.8)
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        low, high = self.scale
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"ResizeMix needs scale as (lowest, highest) from 0 to 1, got {self.scale}."
            )
        _check_rate("ResizeMix", self.mix_rate)
        _check_per("ResizeMix", self.per)
        _check_pairing("ResizeMix", self.pairing)

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
        height, width = _image_size("ResizeMix", image_size)
        mixed = _mixed_rows(self.pairing, size, self.mix_rate)
        partner, reach = _partners(self.pairing, size, mixed, generator, y=y, features=features)
        bond = _bonds(self.per, partner[:mixed])
        count = int(bond.max()) + 1 if mixed else 0
        low, high = self.scale
        tau, down, along = torch.rand(3, count, dtype=torch.float64, generator=generator)
        tau = low + (high - low) * tau
        rows, columns = (tau * height).round().long(), (tau * width).round().long()
        top = (down * (height - rows + 1)).long()
        left = (along * (width - columns + 1)).long()
        region = boxes(top, top + rows, left, left + columns, height=height, width=width)
        return _region_plan(region, bond, partner, size, reach, shrunk=True)


@dataclass(frozen=True)
class FMix:
    """Show the partner in random clouds of low frequency; lam is the share that is left.

    Harris et al., "FMix: Enhancing Mixed Sample Data Augmentation"
    (https://arxiv.org/abs/2002.12047), section 4: lam is drawn from ``Beta(alpha, alpha)``, and
    of a grey noise, whose amplitude falls with frequency, the highest ``1 - lam`` are cut out.

    Args:
        alpha: as for ``MixUp``; the paper uses 1.
        decay: power by which the amplitude falls with frequency, from 0; the paper uses 3.
        mix_rate: as for ``MixUp``.
        per: who shares lam and clouds.
        pairing: who meets whom.

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

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        _check_alpha("FMix", self.alpha)
        _check_rate("FMix", self.mix_rate)
        _check_per("FMix", self.per)
        _check_pairing("FMix", self.pairing)
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
        height, width = _image_size("FMix", image_size)
        mixed = _mixed_rows(self.pairing, size, self.mix_rate if self.alpha else 0)
        partner, reach = _partners(self.pairing, size, mixed, generator, y=y, features=features)
        bond = _bonds(self.per, partner[:mixed])
        lam = draw_beta(self.alpha, int(bond.max()) + 1 if mixed else 0, generator)
        region = clouds(lam, height=height, width=width, decay=self.decay, generator=generator)
        return _region_plan(region, bond, partner, size, reach)


@dataclass(frozen=True)
class DirichletMixUp:
    """Blend more than two examples, with shares drawn from a symmetric Dirichlet distribution.

    With two parents this is ``MixUp``. Zhang et al. (https://arxiv.org/abs/1710.09412), section
    3.8, report that three or more gave nothing over two at their settings.

    Args:
        alpha: concentration, above 0: for each of the parents.
        parents: how many examples a blend is made of, from 2.
        per: who shares the shares: the whole ``"batch"``, or nobody: each ``"example"`` alone.
        pairing: who meets whom, drawn anew for each further parent.

    Example:
        >>> plan = DirichletMixUp(alpha=1.0, parents=3).draw(4)
        >>> plan.partner.shape, torch.allclose(plan.lam + plan.shares.sum(0), torch.ones(4))
        (torch.Size([2, 4]), True)
    """

    alpha: float
    parents: int = 3
    per: Literal["batch", "example"] = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"DirichletMixUp needs a finite alpha above 0, got {self.alpha}.")
        if self.parents < 2:
            raise ValueError(f"DirichletMixUp needs 2 parents or more, got {self.parents}.")
        if self.per not in ("batch", "example"):
            raise ValueError(f'DirichletMixUp needs per="batch" or "example", got {self.per!r}.')
        _check_pairing("DirichletMixUp", self.pairing)

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a plan; see ``Policy.draw``."""
        mixed = _mixed_rows(self.pairing, size, 1.0)
        drawn = [
            _partners(self.pairing, size, mixed, generator, y=y, features=features)
            for _ in range(self.parents - 1)
        ]
        count = 1 if self.per == "batch" else size
        logs = _log_gamma(self.alpha, (self.parents, count), generator)
        shares = logs.softmax(0).float().expand(-1, size)
        # What rounding has lost goes to the example itself, so that the sum is one.
        lam = (1 - shares[1:].sum(0)).clamp(0, 1)
        return trusted_plan(
            max(reach for _, reach in drawn),
            partner=torch.stack([partner for partner, _ in drawn]),
            lam=lam,
            shares=shares[1:].contiguous(),
        )


@dataclass(frozen=True)
class RegMixUp:
    """Train on the clean batch and on its blends at once.

    Pinto et al., "RegMixup: Mixup as a Regularizer Can Surprisingly Improve Accuracy and Out
    Distribution Robustness" (https://arxiv.org/abs/2206.14502), section 3: the loss is that of the
    clean batch plus ``weight`` times that of the blends. ``draw`` answers with a ``CleanAndMixed``,
    which has the methods of a plan; its ``mix`` hands on twice as many examples.

    Args:
        policy: what the blends are drawn from; the paper uses ``MixUp(alpha=10)`` or more.
        weight: of the loss of the blends, from 0; the paper uses 1.

    Example:
        >>> import torch.nn.functional as F
        >>> plan = RegMixUp(MixUp(alpha=10.0)).draw(4)
        >>> x, y = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
        >>> plan.mix(x).shape, plan.loss(F.cross_entropy, plan.mix(x), y).shape
        (torch.Size([8, 3]), torch.Size([]))
    """

    policy: Policy
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"RegMixUp needs weight from 0 on, got {self.weight}.")

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> CleanAndMixed:
        """Draw a plan for the blends; see ``Policy.draw``."""
        plan = self.policy.draw(
            size, generator=generator, y=y, features=features, image_size=image_size
        )
        return CleanAndMixed(plan, self.weight)


@dataclass(frozen=True)
class OneOf:
    """Draw one of several policies for each batch, or none.

    Args:
        policies: what to choose from; ``None`` leaves the batch as it is.
        probabilities: one for each policy, summing to one; all alike where left out.

    Example:
        >>> policy = OneOf([MixUp(0.2), CutMix(1.0), None], probabilities=[0.4, 0.4, 0.2])
        >>> len(policy.draw(4, image_size=(8, 8)))
        4
    """

    policies: Sequence[Policy | None]
    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Refuse probabilities that do not fit."""
        if not self.policies:
            raise ValueError("OneOf needs a policy at least, got none.")
        odds = self.probabilities
        if odds is not None and (
            len(odds) != len(self.policies)
            or not all(one >= 0 for one in odds)
            or not math.isclose(sum(odds), 1, abs_tol=1e-6)
        ):
            raise ValueError(
                f"OneOf needs {len(self.policies)} probabilities that sum to one, got {list(odds)}."
            )

    def draw(
        self,
        size: int,
        *,
        generator: torch.Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw a policy, then a plan from it; see ``Policy.draw``."""
        odds = self.probabilities or [1 / len(self.policies)] * len(self.policies)
        weights = torch.tensor(odds, dtype=torch.float64)
        chosen = self.policies[int(weights.multinomial(1, generator=generator))]
        if chosen is None:
            nobody = torch.zeros(size, dtype=torch.int64)  # a row that is there in any batch
            return trusted_plan(min(size, 1), partner=nobody, lam=torch.ones(size))
        return chosen.draw(size, generator=generator, y=y, features=features, image_size=image_size)


def draw_beta(
    alpha: float | tuple[float, float], count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``count`` values from ``Beta(alpha, alpha)``: ``(count,)`` float64, on the CPU.

    Correct for every positive ``alpha``; ``math.inf`` gives one half. A small ``alpha`` puts much
    weight on the ends: with 0.1 a tenth of the draws lies so near to 1 that float32, the type of
    a plan's lam, rounds it to 1. Two numbers give ``Beta(first, second)``.

    Example:
        >>> draw_beta(math.inf, 2).tolist()
        [0.5, 0.5]
    """
    if alpha == math.inf:
        return torch.full((count,), 0.5, dtype=torch.float64)
    if isinstance(alpha, tuple):
        first, second = (_log_gamma(one, (count,), generator) for one in alpha)
    else:
        first, second = _log_gamma(alpha, (2, count), generator)
    return torch.sub(first, second).sigmoid_()


def _log_gamma(alpha: float, shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Draw logarithms of Gamma variables, float64."""
    # torch's Beta takes no generator, so lam comes from Gamma draws. For a small alpha these
    # underflow to 0 / 0: hence logarithms, by Gamma(a) = Gamma(a + 1) * U ** (1 / a).
    alpha = max(alpha, 1e-300)  # below, 1 / alpha is infinite; and lam is 0 or 1 long before
    gamma = torch._standard_gamma(torch.full(shape, alpha + 1, dtype=torch.float64), generator)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator)
    return gamma.log_().add_(uniform.log_(), alpha=1 / alpha)


def _shared(
    alpha: float | tuple[float, float],
    per: Per,
    partner: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw lam for each row of ``partner``, ``(rows,)`` float32, where some share one."""
    if len(partner) == 0:
        return torch.ones(0)
    if per == "batch":
        return draw_beta(alpha, 1, generator).float().repeat(len(partner))
    lam = draw_beta(alpha, len(partner), generator).float()
    return lam[_first_of_pair(partner)] if per == "pair" else lam


def _first_of_pair(partner: Tensor) -> Tensor:
    """Return for each row the first row of its pair; itself where it has no such bond."""
    own = torch.arange(len(partner))
    inside = partner.clamp_max(len(partner) - 1)
    bound = (partner == inside) & (partner[inside] == own)
    return torch.where(bound, torch.minimum(own, partner), own)


def _bonds(per: Per, partner: Tensor) -> Tensor:
    """Return a number for each row, from 0 without gaps: rows with the same number share."""
    if per == "batch":
        return torch.zeros(len(partner), dtype=torch.int64)
    if per == "example":
        return torch.arange(len(partner))
    bonds: Tensor = _first_of_pair(partner).unique(return_inverse=True)[1]
    return bonds


def _region_plan(
    region: Tensor, bond: Tensor, partner: Tensor, size: int, reach: int, *, shrunk: bool = False
) -> Plan:
    """Return the plan of regions, of which each row below ``len(bond)`` has the one of its bond."""
    lam = torch.ones(size)
    if len(bond) == size and len(region) == 1:
        return trusted_plan(
            reach,
            partner=partner,
            lam=kept_share(region).repeat(size),
            region=region,
            shrunk=shrunk,
        )
    shown = torch.zeros(size, *region.shape[1:], dtype=torch.bool)
    shown[: len(bond)] = region[bond]
    lam[: len(bond)] = kept_share(region)[bond]
    return trusted_plan(reach, partner=partner, lam=lam, region=shown, shrunk=shrunk)


def _mixed_rows(pairing: Pairing, size: int, mix_rate: float) -> int:
    """Return how many of the first rows are mixed.

    Raises:
        TypeError, ValueError: if ``size`` is no number, or negative.
    """
    if not isinstance(size, int):
        raise TypeError(
            f"draw needs the number of examples, got {type(size).__name__}; pass len(x)."
        )
    if size < 0:
        raise ValueError(f"draw needs the number of examples, 0 or more, got {size}.")
    rows = getattr(pairing, "rows", None)
    return round(mix_rate * size) if rows is None else int(rows(size, mix_rate))


def _partners(
    pairing: Pairing,
    size: int,
    mixed: int,
    generator: torch.Generator | None,
    *,
    y: Tensor | None,
    features: Tensor | None,
) -> tuple[Tensor, int]:
    """Return partners ``(size,)`` of which the first ``mixed`` are drawn, and how far they reach.

    Raises:
        TypeError: if the pairing does not answer as it should.
    """
    if mixed == 0:
        partner = _kept(pairing, size)
        return partner, check_reach(partner) or 0
    for name, about in (("y", y), ("features", features)):
        if about is not None and about.shape[:1] != (size,):
            raise ValueError(
                f"draw({size}) needs {name} of {size} rows, got shape {tuple(about.shape)}."
            )
    cut = slice(mixed)
    partner = pairing(
        mixed,
        generator,
        y=None if y is None else y[cut],
        features=None if features is None else features[cut],
    )
    if partner.shape != (mixed,) or partner.dtype != torch.int64:
        raise TypeError(
            f"a pairing needs to answer with ({mixed},) int64 rows, {type(pairing).__name__} "
            f"answered with {tuple(partner.shape)} {partner.dtype}."
        )
    if mixed < size:
        partner = torch.cat([partner, _kept(pairing, size)[mixed:]])
    # A shuffle stays within the batch; any other pairing is looked at.
    return partner, size if isinstance(pairing, Shuffle) else check_reach(partner) or 0


def _kept(pairing: Pairing, size: int) -> Tensor:
    """Return partners for rows that keep everything: themselves, or in a second batch somebody."""
    rows = torch.arange(size)
    return rows % pairing.batch if isinstance(pairing, OtherBatch) else rows


def _check_pairing(policy: str, pairing: Pairing) -> None:
    if isinstance(pairing, type) or not callable(pairing):
        raise TypeError(f"{policy} needs a pairing such as Shuffle(), got {pairing!r}.")


def _check_alpha(policy: str, alpha: float | tuple[float, float]) -> None:
    numbers = alpha if isinstance(alpha, tuple) else (alpha,)
    if not all(isinstance(one, int | float) for one in numbers):
        raise TypeError(f"{policy} needs alpha as a number or two, got {alpha!r}.")
    if isinstance(alpha, tuple):
        if len(alpha) != 2 or not all(0 < one < math.inf for one in alpha):
            raise ValueError(
                f"{policy} needs two finite numbers above 0 for an asymmetric alpha, got {alpha}."
            )
    elif not alpha >= 0:
        raise ValueError(f"{policy} needs alpha from 0 to infinity, got {alpha}.")


def _check_rate(policy: str, mix_rate: float) -> None:
    if not isinstance(mix_rate, int | float) or not 0 <= mix_rate <= 1:
        raise ValueError(
            f"{policy} needs mix_rate, a fraction of the batch, from 0 to 1, got {mix_rate}."
        )


def _check_per(policy: str, per: str) -> None:
    if per not in get_args(Per):
        raise ValueError(f'{policy} needs per="batch", "pair" or "example", got {per!r}.')


def _image_size(policy: str, image_size: Sequence[int] | None) -> tuple[int, int]:
    if image_size is None:
        raise ValueError(
            f"{policy} needs image_size, (height, width): "
            "policy.draw(len(x), image_size=x.shape[-2:])."
        )
    if isinstance(image_size, int) or len(image_size) != 2 or min(image_size) < 1:
        raise ValueError(
            f"{policy} needs image_size as (height, width), from 1 on, got {image_size}."
        )
    return int(image_size[0]), int(image_size[1])

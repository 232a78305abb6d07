"""Policies, from which plans are drawn. Only ``draw`` uses random numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Literal, Protocol

import torch
from torch import Generator, Tensor

from vicinal.mixing.clean_and_mixed import CleanAndMixed
from vicinal.mixing.pairing import Pairing, Shuffle
from vicinal.mixing.plan import Plan
from vicinal.mixing.randomness import CPU
from vicinal.mixing.region_policies import DrawsRegions
from vicinal.mixing.sampling import (
    DrawsPlans,
    Per,
    Request,
    check_pairing,
    check_policy,
    check_settings,
    draw_log_gamma,
    draw_partners,
    draw_shares,
    with_each_parent_once,
)
from vicinal.mixing.target_modes import TargetMode, check_target_mode


class Policy(Protocol):
    """An object from which plans are drawn."""

    def draw(
        self,
        size: int,
        *,
        generator: Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Plan:
        """Draw the partners of ``size`` examples, and the share that each keeps.

        Args:
            size: number of examples, from 0.
            generator: a CPU generator, such as ``generator_at(seed, step)``. Without one, torch's
                global generator is used, so ``torch.manual_seed`` alone makes a run repeatable.
                In a worker process of a loader, this is the worker's own generator.
            y: ``(size, ...)`` targets, for pairings that need them.
            features: ``(size, ...)`` numbers, for pairings that need them.
            image_size: sizes without batch and channels, for policies that draw a region: (height,
                width) of images, (length,) of signals; (features,) of the rows of a table, for
                ``ColumnCutMix``.

        Returns:
            A plan on the CPU; ``plan.to(device)`` moves it, and its methods use the device of
            their arguments.
        """
        ...


@dataclass(frozen=True)
class MixUp(DrawsPlans[Plan]):
    """Blend whole examples, with lam drawn from ``Beta(alpha, alpha)``.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (https://arxiv.org/abs/1710.09412),
    section 2; ``mix_rate`` follows the MXNet MixUp layer.

    Args:
        alpha: strength, from 0 to infinity. If it is 0, nothing is mixed, which is empirical risk
            minimization. If it is near 0, lam is mostly near 0 or near 1, so a blend is almost one
            of its two examples. If it is 1, all shares are equally likely. If it is ``math.inf``,
            lam is always one half. A tuple of two numbers, both above 0 and finite, draws from the
            asymmetric ``Beta(first, second)``: (2, 1) keeps two thirds on average.
        mix_rate: fraction of the batch that is mixed, in ``[0, 1]``: the first
            ``round(mix_rate * size)`` rows are blended with each other, and the others stay
            unchanged. Loaders shuffle, so the first rows are a random choice.
        per: which rows have the same lam. ``"batch"``: all rows, as in the paper's code.
            ``"pair"``: two rows that are each other's partners, for pairings that make pairs, such
            as ``Reverse``; other rows have a lam of their own. ``"example"``: each row has its own.
        pairing: the rule that chooses the partners.
        keep_larger: whether an example always keeps the larger share: lam becomes
            ``max(lam, 1 - lam)``, and is never below one half.
        targets: the targets of a blend. ``"weighted"``: those of its parents, weighted by their
            shares, as in the paper. ``"union"``: the sum of its parents' multi-label targets, at
            most 1, so a blend has all labels of both, unless lam is 1 or 0: such a row is
            one parent alone, and has its labels only; a row that is its own partner gets lam 1.
            ``"own"``: those of the example itself, so that only inputs are mixed, as in an
            ablation of the paper (section 3.8); with ``keep_larger=True``, that is the larger
            parent.

    Raises:
        ValueError: if ``alpha`` is negative or NaN, ``mix_rate`` is outside of ``[0, 1]``, or
            ``per`` or ``targets`` is not one of the three words.

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
    targets: TargetMode = "weighted"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_settings(self)

    def _plan(self, request: Request) -> Plan:
        rate = self.mix_rate if self.alpha else 0
        partner, mixed = draw_partners(self.pairing, rate, request)
        lam = draw_shares(self.alpha, self.per, partner[:mixed], request.generator)
        if self.keep_larger:
            lam = torch.maximum(lam, 1 - lam)
        rest = torch.ones(request.size - mixed, dtype=torch.float32, device=CPU)
        lam = torch.cat([lam, rest])
        if self.targets == "union":
            shares = torch.stack([lam, 1 - lam])
            lam = with_each_parent_once(partner[None], shares, self.pairing)[0]
        return Plan(partner, lam, target_mode=self.targets)


@dataclass(frozen=True)
class DirichletMixUp(DrawsPlans[Plan]):
    """Blend more than two examples, with shares drawn from a symmetric Dirichlet distribution.

    With two parents this is ``MixUp``. Zhang et al. (https://arxiv.org/abs/1710.09412), end of
    section 2, report that three or more parents gave no further gain over two.

    Args:
        alpha: concentration, above 0, the same for each of the parents.
        parents: number of examples in a blend, from 2.
        per: ``"batch"`` draws one set of shares for the whole batch, ``"example"`` one for each
            example.
        pairing: the rule that chooses the partners, applied once for each further parent.
        targets: as for ``MixUp``; ``"union"`` takes the labels of all parents. If an example occurs
            twice among the parents of such a blend, its first occurrence gets the sum of both
            shares, and the second one gets 0.

    Example:
        >>> plan = DirichletMixUp(alpha=1.0, parents=3).draw(4)
        >>> plan.partner.shape, torch.allclose(plan.lam + plan.shares.sum(0), torch.ones(4))
        (torch.Size([2, 4]), True)
    """

    alpha: float
    parents: int = 3
    per: Literal["batch", "example"] = "batch"
    pairing: Pairing = field(default_factory=Shuffle)
    targets: TargetMode = "weighted"

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.alpha, Real) or not 0 < self.alpha < math.inf:
            raise ValueError(f"DirichletMixUp: expected a finite alpha above 0, got {self.alpha}.")
        if self.parents < 2:
            raise ValueError(f"DirichletMixUp: expected 2 parents or more, got {self.parents}.")
        if self.per not in ("batch", "example"):
            raise ValueError(
                f'DirichletMixUp: expected per="batch" or "example", got {self.per!r}.'
            )
        check_pairing("DirichletMixUp", self.pairing)
        check_target_mode("DirichletMixUp: expected targets", self.targets)

    def _plan(self, request: Request) -> Plan:
        partners = [draw_partners(self.pairing, 1.0, request)[0] for _ in range(self.parents - 1)]
        count = 1 if self.per == "batch" else request.size
        logs = draw_log_gamma(self.alpha, (self.parents, count), request.generator)
        shares = logs.softmax(0).float().expand(-1, request.size)
        # The example gets what rounding has lost, so that the sum is one.
        lam = (1 - shares[1:].sum(0)).clamp(0, 1)
        partner, shares = torch.stack(partners), torch.cat([lam[None], shares[1:]])
        if self.targets == "union":
            shares = with_each_parent_once(partner, shares, self.pairing)
        return Plan(partner, shares[0], shares[1:].contiguous(), target_mode=self.targets)


@dataclass(frozen=True)
class RegMixUp(DrawsPlans[CleanAndMixed]):
    """Train on the clean batch and on its blends at the same time.

    Pinto et al., "RegMixup: Mixup as a Regularizer Can Surprisingly Improve Accuracy and Out
    Distribution Robustness" (https://arxiv.org/abs/2206.14502), section 3: the loss is that of the
    clean batch plus ``weight`` times that of the blends. ``draw`` returns a ``CleanAndMixed``,
    which has the methods of a plan; its ``mix`` returns twice as many examples.

    Args:
        policy: draws the plan of the blends; the paper uses ``MixUp(alpha=10)`` or more.
        weight: weight of the loss of the blends, from 0; the paper uses 1.

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
        """Check the weight and the policy."""
        check_policy("RegMixUp", self.policy)
        if any(isinstance(one, RegMixUp) for one in _inner(self.policy)):
            raise TypeError("RegMixUp: expected a policy that draws blends alone, got RegMixUp.")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"RegMixUp: expected a finite weight of 0 or more, got {self.weight}.")

    def _plan(self, request: Request) -> CleanAndMixed:
        named = request._asdict()
        return CleanAndMixed(self.policy.draw(named.pop("size"), **named), self.weight)


@dataclass(frozen=True)
class OneOf(DrawsPlans[Plan]):
    """Draw one of several policies for each batch, or none.

    Args:
        policies: what to choose from; ``None`` leaves the batch unmixed.
        probabilities: one for each policy, summing to one; equal if None.

    Example:
        >>> from vicinal import CutMix
        >>> policy = OneOf([MixUp(0.2), CutMix(1.0), None], probabilities=[0.4, 0.4, 0.2])
        >>> len(policy.draw(4, image_size=(8, 8)))
        4
    """

    policies: Sequence[Policy | None]
    probabilities: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Check the policies and the probabilities."""
        if not self.policies:
            raise ValueError("OneOf: expected at least one policy, got none.")
        for one in self.policies:
            if one is not None and (isinstance(one, type) or not hasattr(one, "draw")):
                raise TypeError(
                    f"OneOf: expected policies such as MixUp(alpha=0.2), or None to leave a batch "
                    f"unmixed, got {one!r}."
                )
        odds = self.probabilities
        if odds is not None and (
            len(odds) != len(self.policies)
            or not all(one >= 0 for one in odds)
            or not math.isclose(sum(odds), 1, abs_tol=1e-6)
        ):
            raise ValueError(
                f"OneOf: expected {len(self.policies)} probabilities that sum to one, got "
                f"{list(odds)}."
            )

    def _plan(self, request: Request) -> Plan:
        for one in _inner(self) if request.image_size is None else ():
            if isinstance(one, DrawsRegions):  # raise now, not at a random batch
                one.draw(request.size)
        weights = torch.as_tensor(self._odds(), dtype=torch.float64, device=CPU)
        chosen = self.policies[int(weights.multinomial(1, generator=request.generator))]
        if chosen is None:
            own = torch.arange(request.size, device=CPU)
            plan = Plan(own, torch.ones(request.size, dtype=torch.float32, device=CPU))
            return plan._changed(_unmixed=True, _rows=None)
        return chosen.draw(**request._asdict())

    def _odds(self) -> Sequence[float]:
        count = len(self.policies)
        return [1 / count] * count if self.probabilities is None else self.probabilities


def _inner(policy: Policy | None) -> Iterator[Policy | None]:
    """Yield a policy and all that it may draw from."""
    yield policy
    if isinstance(policy, RegMixUp):
        yield from _inner(policy.policy)
    if isinstance(policy, OneOf):
        for one, odds in zip(policy.policies, policy._odds(), strict=True):
            if odds:
                yield from _inner(one)

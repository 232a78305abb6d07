"""Policies: what is drawn from. All chance of the mixing core happens in ``draw``."""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from vicinal.mixing.pairing import Pairing, Shuffle
from vicinal.mixing.plan import Plan

Per = Literal["batch", "pair", "example"]


@dataclass(frozen=True)
class MixUp:
    """Blend whole examples, with lam drawn from ``Beta(alpha, alpha)``.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization" (https://arxiv.org/abs/1710.09412),
    section 2; ``mix_rate`` follows the MXNet MixUp layer.

    Args:
        alpha: strength, from 0 to infinity. 0 is empirical risk minimisation: nothing is mixed.
            Near 0 most examples stay almost whole; 1 makes all shares equally likely; with
            ``math.inf`` every blend is half and half.
        mix_rate: fraction of the batch that is mixed, in ``[0, 1]``. It concerns the first
            ``round(mix_rate * size)`` rows, which meet among themselves; the others stay as they
            are. Shuffle the batch, as loaders do, and chance decides who is among the first.
        per: who shares a lam: the whole ``"batch"`` (as in the paper's code), each ``"pair"`` of
            rows that are each other's partners (needs a pairing that makes pairs, such as
            ``Reverse``; rows without such a bond draw alone), or nobody: every ``"example"`` alone.
        pairing: who meets whom.

    Raises:
        ValueError: if ``alpha`` is negative or NaN, ``mix_rate`` outside ``[0, 1]`` or ``per`` not
            one of the three words.

    Example:
        >>> plan = MixUp(alpha=1.0, mix_rate=0.5).draw(4)
        >>> plan.partner[2:].tolist(), plan.lam[2:].tolist()
        ([2, 3], [1.0, 1.0])
    """

    alpha: float
    mix_rate: float = 1.0
    per: Per = "batch"
    pairing: Pairing = field(default_factory=Shuffle)

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        if not self.alpha >= 0:
            raise ValueError(f"MixUp needs alpha from 0 to infinity, got {self.alpha}.")
        if not 0 <= self.mix_rate <= 1:
            raise ValueError(
                f"MixUp needs mix_rate, a fraction of the batch, from 0 to 1, got {self.mix_rate}."
            )
        if self.per not in get_args(Per):
            raise ValueError(f'MixUp needs per="batch", "pair" or "example", got {self.per!r}.')

    def draw(self, size: int, *, generator: torch.Generator | None = None) -> Plan:
        """Draw who meets whom in a batch of ``size`` examples, and how much each keeps.

        Args:
            size: number of examples, from 0.
            generator: a CPU generator, such as ``generator_at(seed, step)``; without one torch's
                global generator is used, so ``torch.manual_seed`` alone makes a run repeatable.

        Returns:
            A plan on the CPU; ``plan.to(device)`` moves it, and ``mix`` and ``loss`` of a plan
            follow the device of what they are given.
        """
        mixed = 0 if self.alpha == 0 else round(self.mix_rate * size)
        partner = torch.arange(size)
        lam = torch.ones(size)
        if mixed:
            partner[:mixed] = self.pairing(mixed, generator)
            lam[:mixed] = self._lam(partner[:mixed], generator)
        return Plan(partner, lam)

    def _lam(self, partner: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.per == "batch":
            return draw_beta(self.alpha, 1, generator).float()
        lam = draw_beta(self.alpha, len(partner), generator).float()
        if self.per == "pair":
            own = torch.arange(len(partner))
            lam = torch.where(partner[partner] == own, lam[torch.minimum(own, partner)], lam)
        return lam


def draw_beta(alpha: float, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw ``count`` values from ``Beta(alpha, alpha)``: ``(count,)`` float64, on the CPU.

    Correct for every positive ``alpha``; ``math.inf`` gives one half. A small ``alpha`` puts much
    weight on the ends: with 0.1 a tenth of the draws lies so near to 1 that float32, the type of
    a plan's lam, rounds it to 1.

    Example:
        >>> draw_beta(math.inf, 2).tolist()
        [0.5, 0.5]
    """
    if alpha == math.inf:
        return torch.full((count,), 0.5, dtype=torch.float64)
    # torch's Beta takes no generator, so lam comes from two Gamma draws. For a small alpha these
    # underflow to 0 / 0: hence logarithms, by Gamma(a) = Gamma(a + 1) * U ** (1 / a).
    gamma = torch._standard_gamma(torch.full((2, count), alpha + 1, dtype=torch.float64), generator)
    uniform = torch.rand(2, count, dtype=torch.float64, generator=generator)
    log_gamma = gamma.log() + uniform.log() / alpha
    return torch.sigmoid(log_gamma[0] - log_gamma[1])

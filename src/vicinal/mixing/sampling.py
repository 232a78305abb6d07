"""What policies share: their signature, and functions that draw shares and partners."""

import itertools
import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any, Generic, Literal, NamedTuple, NoReturn, TypeVar, get_args

import torch
from torch import Generator, Tensor

from vicinal.mixing.pairing import OtherBatch, Pairing
from vicinal.mixing.randomness import CPU, named
from vicinal.mixing.target_modes import check_target_mode

Per = Literal["batch", "pair", "example"]
Drawn = TypeVar("Drawn")


class Request(NamedTuple):
    """The arguments of ``Policy.draw``."""

    size: int
    generator: Generator | None = None
    y: Tensor | None = None
    features: Tensor | None = None
    image_size: Sequence[int] | None = None


def raise_on_call(policy: object, *_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise an error that explains ``draw``: the ``__call__`` of policies."""
    name = type(policy).__name__
    raise TypeError(
        f"{name} cannot be called. Draw a plan with plan = policy.draw(len(x)), then call "
        f"plan.mix(x) and plan.loss(criterion, output, y). For x, y = layer(x, y), use "
        f"MixUpLayer({name}(...), num_classes=...)."
    )


class DrawsPlans(Generic[Drawn]):
    """The base of policies: they define ``_plan`` only."""

    __call__ = raise_on_call

    def draw(
        self,
        size: int,
        *,
        generator: Generator | None = None,
        y: Tensor | None = None,
        features: Tensor | None = None,
        image_size: Sequence[int] | None = None,
    ) -> Drawn:
        """Draw a plan; see ``Policy.draw``."""
        with torch.inference_mode(False):  # a plan may outlive this mode and be trained with
            plan = self._plan(Request(size, generator, y, features, image_size))
            if isinstance(getattr(self, "pairing", None), OtherBatch):
                plan.__dict__["_of_second_batch"] = True
            return plan

    def _plan(self, request: Request) -> Drawn:
        raise NotImplementedError


def draw_beta(
    alpha: float | tuple[float, float], count: int, generator: Generator | None = None
) -> Tensor:
    """Draw ``count`` values from ``Beta(alpha, alpha)``: ``(count,)`` float64, on the CPU.

    Correct for every positive ``alpha``; ``math.inf`` gives one half. A small ``alpha`` puts much
    weight on the ends: with 0.1 a tenth of the draws is so near to 1 that float32, the type of
    a plan's lam, rounds it to 1. Two numbers give ``Beta(first, second)``.

    Example:
        >>> draw_beta(math.inf, 2).tolist()
        [0.5, 0.5]
    """
    if alpha == math.inf:
        return torch.full((count,), 0.5, dtype=torch.float64, device=CPU)
    if isinstance(alpha, tuple):
        first, second = (draw_log_gamma(one, (count,), generator) for one in alpha)
    else:
        first, second = draw_log_gamma(alpha, (2, count), generator)
    return (first - second).sigmoid()


def draw_log_gamma(alpha: float, shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    """Draw logarithms of Gamma variables, float64.

    PyTorch's Beta distribution takes no generator, so lam is drawn from two Gamma variables. For a
    small alpha these underflow to 0 / 0, so their logarithms are drawn instead, by
    Gamma(a) = Gamma(a + 1) * U ** (1 / a).
    """
    number = torch.full(shape, alpha + 1, dtype=torch.float64, device=CPU)
    gamma = torch._standard_gamma(number, generator)
    uniform = torch.rand(shape, dtype=torch.float64, device=CPU, **named(generator))
    # Below 1e-300 the power is infinite; lam is 0 or 1 long before.
    return gamma.log_().add_(uniform.log_(), alpha=1 / max(alpha, 1e-300))


def draw_shares(
    alpha: float | tuple[float, float], per: Per, partner: Tensor, generator: Generator | None
) -> Tensor:
    """Draw lam for each row of ``partner``, ``(rows,)`` float32; some rows share one value."""
    rows = len(partner)
    lam = draw_beta(alpha, min(rows, 1) if per == "batch" else rows, generator).float()
    return lam[_first_of_pair(partner)] if per == "pair" else lam.expand(rows).contiguous()


def _first_of_pair(partner: Tensor) -> Tensor:
    """Return for each row the first row of its pair, or the row itself if it is not in a pair."""
    own = torch.arange(len(partner), device=CPU)
    inside = partner.clamp_max(len(partner) - 1)
    bound = (partner == inside) & (partner[inside] == own)
    return torch.where(bound, torch.minimum(own, partner), own)


def with_each_parent_once(partner: Tensor, shares: Tensor, pairing: Pairing) -> Tensor:
    """Return shares in which an example that is twice among the parents of a blend counts once.

    The first of equal parents gets the shares of the others. The blend stays the same, but a union
    of labels would otherwise add those of such an example to themselves.

    Args:
        partner: ``(parents - 1, batch)``.
        shares: ``(parents, batch)``, those of the rows themselves first.
        pairing: tells whether the partners are rows of a second batch.

    Example:
        >>> from vicinal import Shuffle
        >>> partner, shares = torch.tensor([[1, 1]]), torch.tensor([[0.75, 0.75], [0.25, 0.25]])
        >>> with_each_parent_once(partner, shares, Shuffle()).tolist()
        [[0.75, 1.0], [0.25, 0.0]]
    """
    second_batch = isinstance(pairing, OtherBatch)
    own = torch.arange(partner.shape[1], device=CPU)
    parents = [torch.full_like(own, -1) if second_batch else own, *partner]
    merged = list(shares)
    for later, earlier in itertools.combinations(reversed(range(len(parents))), 2):
        same = parents[later] == parents[earlier]
        merged[earlier] = torch.where(same, merged[earlier] + merged[later], merged[earlier])
        merged[later] = torch.where(same, 0, merged[later])
    return torch.stack(merged)


def groups(per: Per, partner: Tensor) -> tuple[Tensor, int]:
    """Return a number for each row, and how many there are: rows with the same number share."""
    if per == "batch":
        return torch.zeros(len(partner), dtype=torch.int64, device=CPU), min(len(partner), 1)
    if per == "example":
        return torch.arange(len(partner), device=CPU), len(partner)
    firsts, group = _first_of_pair(partner).unique(return_inverse=True)
    return group, len(firsts)


def draw_partners(pairing: Pairing, mix_rate: float, request: Request) -> tuple[Tensor, int]:
    """Draw partners for the first rows, a fraction of all; the others are their own.

    Returns:
        Partners ``(size,)`` int64, and how many of the first rows are mixed.

    Raises:
        TypeError, ValueError: if the size is not a number or negative, ``y`` or ``features`` has a
            different length, or the pairing returns something other than partners.
    """
    try:
        size = operator.index(request.size)
    except TypeError:
        got = type(request.size).__name__
        raise TypeError(f"draw: expected the number of examples, got {got}. Pass len(x).") from None
    if size < 0:
        raise ValueError(f"draw: expected the number of examples, 0 or more, got {size}.")
    rows = getattr(pairing, "rows", None)
    mixed = round(mix_rate * size) if rows is None else int(rows(size, mix_rate))
    own = torch.arange(size, device=CPU)
    # Rows that keep everything may have any row of a second batch as their partner.
    own = own % pairing.batch if isinstance(pairing, OtherBatch) else own
    if mixed == 0:
        return own, 0
    y, features = (
        _first_rows(name, getattr(request, name), size, mixed) for name in ("y", "features")
    )
    partner = pairing(mixed, request.generator, y=y, features=features)
    if partner.shape != (mixed,) or partner.dtype != torch.int64:
        raise TypeError(
            f"pairing: expected {type(pairing).__name__} to return row numbers of shape ({mixed},) "
            f"and dtype torch.int64, got {tuple(partner.shape)} and {partner.dtype}."
        )
    return torch.cat([partner.to(CPU), own[mixed:]]), mixed


def _first_rows(name: str, about: Tensor | None, size: int, mixed: int) -> Tensor | None:
    if about is not None and about.shape[:1] != (size,):
        raise ValueError(
            f"{name}: expected {size} rows, as in draw({size}), got shape {tuple(about.shape)}."
        )
    return None if about is None else about[:mixed]


def check_pairing(policy: str, pairing: Pairing) -> None:
    """Raise unless this is an instance of a pairing."""
    if isinstance(pairing, type) or not callable(pairing) or hasattr(pairing, "draw"):
        raise TypeError(f"{policy}: expected a pairing such as Shuffle(), got {pairing!r}.")


def check_policy(name: str, policy: Any) -> None:
    """Raise unless this is an instance of a policy."""
    if isinstance(policy, type) or not hasattr(policy, "draw"):
        raise TypeError(f"{name}: expected a policy such as MixUp(alpha=0.2), got {policy!r}.")


def check_settings(policy: Any) -> None:
    """Raise unless the settings that several policies have are valid."""
    name, rate = type(policy).__name__, policy.mix_rate
    alpha = getattr(policy, "alpha", 1.0)  # ResizeMix has none
    numbers = alpha if isinstance(alpha, tuple) else (alpha,)
    if not all(isinstance(one, Real) for one in numbers):
        raise TypeError(f"{name}: expected alpha as a number or a tuple of two, got {alpha!r}.")
    if isinstance(alpha, tuple) and not (len(alpha) == 2 and all(0 < a < math.inf for a in alpha)):
        raise ValueError(
            f"{name}: expected two finite numbers above 0 for an asymmetric alpha, got {alpha}."
        )
    if not all(one >= 0 for one in numbers):
        raise ValueError(f"{name}: expected alpha from 0 to infinity, got {alpha}.")
    if not isinstance(rate, Real) or not 0 <= float(rate) <= 1:
        raise ValueError(
            f"{name}: expected mix_rate, a fraction of the batch, from 0 to 1, got {rate}."
        )
    if policy.per not in get_args(Per):
        raise ValueError(f'{name}: expected per="batch", "pair" or "example", got {policy.per!r}.')
    check_pairing(name, policy.pairing)
    check_target_mode(f"{name}: expected targets", policy.targets)

"""Functions that policies share: to draw shares and partners, and to check settings."""

import math
from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor

from vicinal.mixing.operator import check_reach
from vicinal.mixing.pairing import OtherBatch, Pairing, Shuffle
from vicinal.mixing.randomness import CPU

Per = Literal["batch", "pair", "example"]


def draw_beta(
    alpha: float | tuple[float, float],
    count: int,
    generator: torch.Generator | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Draw ``count`` values from ``Beta(alpha, alpha)``: ``(count,)``, on the CPU.

    They are drawn in float64 and rounded to ``dtype`` in the end.

    Correct for every positive ``alpha``; ``math.inf`` gives one half. A small ``alpha`` puts much
    weight on the ends: with 0.1 a tenth of the draws lies so near to 1 that float32, the type of
    a plan's lam, rounds it to 1. Two numbers give ``Beta(first, second)``.

    Example:
        >>> draw_beta(math.inf, 2).tolist()
        [0.5, 0.5]
    """
    if alpha == math.inf:
        return torch.full((count,), 0.5, dtype=dtype, device=CPU)
    if isinstance(alpha, tuple):
        first, second = (draw_log_gamma(one, (count,), generator) for one in alpha)
    else:
        first, second = draw_log_gamma(alpha, (2, count), generator)
    return (first - second).sigmoid().to(dtype)


def draw_log_gamma(
    alpha: float, shape: tuple[int, ...], generator: torch.Generator | None
) -> Tensor:
    """Draw logarithms of Gamma variables, float64.

    PyTorch's Beta distribution takes no generator, so lam is drawn from two Gamma variables. For a
    small alpha these underflow to 0 / 0, so their logarithms are drawn instead, by
    Gamma(a) = Gamma(a + 1) * U ** (1 / a).
    """
    number = torch.full(shape, alpha + 1, dtype=torch.float64, device=CPU)
    gamma = torch._standard_gamma(number, generator)
    uniform = torch.rand(shape, dtype=torch.float64, generator=generator, device=CPU)
    # Below 1e-300 the power is infinite; lam is 0 or 1 long before.
    return gamma.log_().add_(uniform.log_(), alpha=1 / max(alpha, 1e-300))


def draw_shares(
    alpha: float | tuple[float, float],
    per: Per,
    partner: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw lam for each row of ``partner``, ``(rows,)`` float32, where some share one."""
    rows = partner.numel()  # len() would be a call in Python
    if rows == 0:
        return torch.ones(0, dtype=torch.float32, device=CPU)
    if per == "batch":
        one = draw_beta(alpha, 1, generator, dtype=torch.float32)
        return one.expand(rows).contiguous()
    lam = draw_beta(alpha, rows, generator, dtype=torch.float32)
    return lam[_first_of_pair(partner)] if per == "pair" else lam


def _first_of_pair(partner: Tensor) -> Tensor:
    """Return for each row the first row of its pair; itself if it has no such partner."""
    own = torch.arange(len(partner), device=CPU)
    inside = partner.clamp_max(len(partner) - 1)
    bound = (partner == inside) & (partner[inside] == own)
    return torch.where(bound, torch.minimum(own, partner), own)


def groups(per: Per, partner: Tensor) -> Tensor:
    """Return a number for each row, from 0 without gaps: rows with the same number share."""
    if per == "batch":
        return torch.zeros(len(partner), dtype=torch.int64, device=CPU)
    if per == "example":
        return torch.arange(len(partner), device=CPU)
    groups: Tensor = _first_of_pair(partner).unique(return_inverse=True)[1]
    return groups


def draw_partners(
    pairing: Pairing,
    size: int,
    mix_rate: float,
    generator: torch.Generator | None,
    *,
    y: Tensor | None,
    features: Tensor | None,
) -> tuple[Tensor, int, int]:
    """Draw partners for the first rows, a fraction of all; the others are their own.

    Returns:
        Partners ``(size,)`` int64, how many of the first rows are mixed, and how many rows a batch
        needs to have for these partners.

    Raises:
        TypeError, ValueError: if ``size`` is no number, or negative; if ``y`` or ``features`` has
            another length; if the pairing returns something else.
    """
    if not isinstance(size, int):
        raise TypeError(
            f"draw needs the number of examples, got {type(size).__name__}; pass len(x)."
        )
    if size < 0:
        raise ValueError(f"draw needs the number of examples, 0 or more, got {size}.")
    rows = getattr(pairing, "rows", None)
    mixed = round(mix_rate * size) if rows is None else int(rows(size, mix_rate))
    if mixed == 0:
        partner = _kept(pairing, size)
        return partner, mixed, check_reach(partner) or 0
    y = None if y is None else _first_rows("y", y, size, mixed)
    features = None if features is None else _first_rows("features", features, size, mixed)
    partner = pairing(mixed, generator, y=y, features=features)
    shuffled = type(pairing) is Shuffle  # which stays within the batch; others are checked
    if not shuffled:
        if partner.shape != (mixed,) or partner.dtype != torch.int64:
            raise TypeError(
                f"a pairing needs to return ({mixed},) int64 rows, {type(pairing).__name__} "
                f"returned {tuple(partner.shape)} {partner.dtype}."
            )
        partner = partner.to(CPU)
    if mixed < size:
        partner = torch.cat([partner, _kept(pairing, size)[mixed:]])
    return partner, mixed, size if shuffled else check_reach(partner) or 0


def _first_rows(name: str, about: Tensor, size: int, mixed: int) -> Tensor:
    if about.shape[:1] != (size,):
        raise ValueError(
            f"draw({size}) needs {name} of {size} rows, got shape {tuple(about.shape)}."
        )
    return about[:mixed]


def _kept(pairing: Pairing, size: int) -> Tensor:
    """Return partners for rows that keep everything: themselves, or any row of a second batch."""
    rows = torch.arange(size, device=CPU)
    return rows % pairing.batch if isinstance(pairing, OtherBatch) else rows


def check_pairing(policy: str, pairing: Pairing) -> None:
    """Raise unless this is a pairing, made and ready to be called."""
    if isinstance(pairing, type) or not callable(pairing) or hasattr(pairing, "draw"):
        raise TypeError(f"{policy} needs a pairing such as Shuffle(), got {pairing!r}.")


def check_alpha(policy: str, alpha: float | tuple[float, float]) -> None:
    """Raise unless alpha is a number from 0 to infinity, or two that are finite and above 0."""
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


def check_rate(policy: str, mix_rate: float) -> None:
    """Raise unless this is a fraction."""
    if not isinstance(mix_rate, int | float) or not 0 <= mix_rate <= 1:
        raise ValueError(
            f"{policy} needs mix_rate, a fraction of the batch, from 0 to 1, got {mix_rate}."
        )


def check_per(policy: str, per: str) -> None:
    """Raise unless this is one of the words of ``Per``."""
    if per not in get_args(Per):
        raise ValueError(f'{policy} needs per="batch", "pair" or "example", got {per!r}.')


def raise_on_call(policy: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
    """Raise an error that explains ``draw``: the ``__call__`` of policies."""
    name = type(policy).__name__
    raise TypeError(
        f"{name} draws plans and is not called: plan = policy.draw(len(x)), then plan.mix(x) and "
        f"plan.loss(criterion, output, y). For x, y = layer(x, y) use MixUpLayer({name}(...), "
        "num_classes=...)."
    )

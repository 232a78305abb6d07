"""Any device: the textbook expression in plain PyTorch, the oracle for the other kernels."""

import torch
from torch import Tensor


def textbook(x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Return ``lam * x + (1 - lam) * other[partner]`` in the type of ``lam``.

    Plain PyTorch from end to end, so every transform of ``torch.func`` passes through it.
    """
    keep = per_row(lam, x)
    return keep * x.to(lam.dtype) + (1 - keep) * other.index_select(0, partner).to(lam.dtype)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix as ``vicinal.mixing.kernels`` says."""
    # 0 * inf is nan and -0.0 + 0.0 is 0.0: only a selection leaves a row truly untouched.
    blend = torch.where(per_row(lam, x) == 1, x.to(lam.dtype), textbook(x, other, partner, lam))
    out.copy_(blend.round() if out.dtype == torch.uint8 else blend)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels`` says."""
    wide, keep = g.to(lam.dtype), per_row(lam, g)
    given = torch.where(keep == 1, 0, (1 - keep) * wide)
    out.copy_((keep * wide).index_add(0, partner, given))


def per_row(share: Tensor, x: Tensor) -> Tensor:
    """Return ``(batch,)`` shares in a shape that multiplies the rows of ``x``."""
    return share.reshape(-1, *[1] * (x.dim() - 1))


def wide_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type to compute in: float64 for float64, float32 for all that is narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32

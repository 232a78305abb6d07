"""The function under it all: blend each row of a batch with a row of a batch."""

import torch
from torch import Tensor


def mix(x: Tensor, *, partner: Tensor, lam: Tensor, other: Tensor | None = None) -> Tensor:
    """Blend each example with its partner.

    Row ``i`` of the result is ``lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]``: ``lam`` is
    the share that an example keeps. Differentiable, any number of times, by ``x``, ``other`` and
    ``lam``. Follows Zhang et al., "mixup: Beyond Empirical Risk Minimization"
    (https://arxiv.org/abs/1710.09412), section 2, equation for the virtual examples.

    The blend is computed in float64 for float64 input and in float32 for every narrower type,
    then rounded once to the type of ``x``; so the two shares add up to one in bfloat16 too. A row
    that keeps everything (``lam`` is 1) comes out bit for bit as it went in, whatever its
    partner holds, unless a gradient by ``lam`` is asked for.

    Args:
        x: ``(batch, ...)``, any floating-point type or uint8; at least one dimension. Not modified.
        partner: ``(batch,)`` int64, row indices into ``other``. Need not be a permutation.
        lam: ``(batch,)`` floating point, values in ``[0, 1]``.
        other: ``(rows, ...)``, where the partners come from: ``x`` itself if not given. Same type
            and same shape as ``x`` but for the first dimension. Not modified.

    Returns:
        A new tensor of the shape and type of ``x``; uint8 is rounded to the nearest value.

    Raises:
        TypeError: if ``x`` is neither floating point nor uint8, if ``other`` is of another type,
            or if ``partner`` or ``lam`` has an unfit type.
        ValueError: if shapes do not fit, or (looked at on the CPU only, since looking makes a GPU
            wait) if ``partner`` points outside ``other`` or ``lam`` leaves ``[0, 1]``.

    Example:
        >>> x = torch.tensor([[0.0], [8.0]])
        >>> mix(x, partner=torch.tensor([1, 0]), lam=torch.tensor([0.75, 1.0])).tolist()
        [[2.0], [8.0]]
    """
    other = x if other is None else other
    _check_rows(x, other)
    check_shares(partner, lam)
    if len(partner) != len(x):
        raise ValueError(
            f"mix needs one partner and one lam per example: x has batch size {len(x)}, "
            f"partner and lam hold {len(partner)}; draw a plan with policy.draw({len(x)})."
        )
    if partner.device.type == "cpu" and bool((partner >= len(other)).any()):
        raise ValueError(
            f"mix needs partners that are rows of the batch: it has {len(other)} rows, "
            f"partner goes up to {int(partner.max())}."
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    keep = lam.to(wide).reshape(-1, *[1] * (x.dim() - 1))
    give = 1 - keep
    blend = keep * x.to(wide) + give * other[partner].to(wide)
    if not lam.requires_grad:
        # 0 * inf is nan and -0.0 + 0.0 is 0.0: only a selection leaves a row truly untouched.
        blend = torch.where(give == 0, x.to(wide), blend)
    if x.dtype == torch.uint8:
        blend = blend.round()
    return blend.to(x.dtype)


def check_shares(partner: Tensor, lam: Tensor) -> None:
    """Raise unless ``partner`` is ``(batch,)`` int64 and ``lam`` holds as many shares in [0, 1]."""
    if partner.dtype != torch.int64:
        raise TypeError(
            f"partner needs int64 row indices, got {partner.dtype}; call partner.long()."
        )
    if not lam.dtype.is_floating_point:
        raise TypeError(f"lam needs a floating-point type, got {lam.dtype}; call lam.float().")
    if partner.dim() != 1:
        raise ValueError(f"partner needs shape (batch,), got {tuple(partner.shape)}.")
    if lam.shape != partner.shape:
        raise ValueError(
            f"mixing needs one lam per example: partner holds {len(partner)}, lam has shape "
            f"{tuple(lam.shape)}. To share one value, pass lam.expand({len(partner)})."
        )
    if partner.device.type == "cpu" and bool((partner < 0).any()):
        raise ValueError(f"partner needs row indices from 0 on, got {int(partner.min())}.")
    if lam.device.type == "cpu" and not bool(((lam >= 0) & (lam <= 1)).all()):
        outside = lam[~((lam >= 0) & (lam <= 1))][0].item()
        raise ValueError(f"lam is the share that an example keeps, from 0 to 1; got {outside}.")


def _check_rows(x: Tensor, other: Tensor) -> None:
    if x.dim() == 0:
        raise ValueError("mix needs a batch, (batch, ...); got a single number without dimensions.")
    if not (x.dtype.is_floating_point or x.dtype == torch.uint8):
        raise TypeError(
            f"mix blends floating-point and uint8 values, got {x.dtype}; call x.float(), "
            "or plan.targets(y, num_classes) for class labels."
        )
    if other.dtype != x.dtype:
        raise TypeError(f"mix needs x and other of one type, got {x.dtype} and {other.dtype}.")
    if other.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"mix needs x and other of one shape after the first dimension, "
            f"got {tuple(x.shape)} and {tuple(other.shape)}."
        )

"""Any device: PyTorch operators, on blocks of columns that fit into the cache of a CPU."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 3 * 1024 * 1024
"""Bytes of the columns of all rows that are mixed together."""


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix ``(batch, n)`` tensors as ``vicinal.mixing.kernels.mix`` does."""
    keep = lam[:, None]
    # 0 * inf is nan and -0.0 + 0.0 is 0.0: only a selection leaves a row unchanged.
    select = not lam.is_cpu or bool((lam == 1).any())
    for columns in _blocks(x):
        _mix_block([each[:, columns] for each in (out, x, other)], partner, keep, select)


def _mix_block(tensors: list[Tensor], partner: Tensor, keep: Tensor, select: bool) -> None:
    out, x, other = tensors
    blend = other.index_select(0, partner).to(keep.dtype)
    if out.dtype == x.dtype == keep.dtype and not select:
        torch.lerp(blend, x, keep, out=out)
        return
    blend.lerp_(x.to(keep.dtype), keep)
    if out.dtype == torch.uint8:
        blend.round_()
    if select:
        blend = torch.where(keep == 1, x.to(out.dtype), blend.to(out.dtype))
    out.copy_(blend)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels.transposed`` does."""
    # The values of partner are not read on other devices, since a GPU would have to be waited for.
    reader = _inverse(partner) if partner.is_cpu else None
    keep, give = lam[:, None], 1 - lam[:, None]
    if reader is None:
        wide = g.to(lam.dtype)
        given = torch.where(give == 0, 0, give * wide)  # a row that keeps nan gives none of it
        out.copy_((keep * wide).index_add_(0, partner, given))
    elif bool((lam == lam[0]).all()):
        mix(out, g, g, reader, lam)
    else:
        give = give[reader]
        for columns in _blocks(g):
            own = g[:, columns]
            given = torch.where(give == 0, 0, give * own.index_select(0, reader).to(lam.dtype))
            out[:, columns] = given.addcmul_(keep, own.to(lam.dtype))


def _inverse(partner: Tensor) -> Tensor | None:
    """Return the one row that each row is the partner of; None if that is not one for each."""
    inverse = torch.full_like(partner, -1)
    inverse[partner] = torch.arange(len(partner), device=partner.device)
    return None if bool((inverse < 0).any()) else inverse


def _blocks(x: Tensor) -> Iterator[slice]:
    columns = x.shape[1]
    width = max(64, BLOCK // (len(x) * x.element_size())) if x.is_cpu else columns
    for start in range(0, columns, width):
        yield slice(start, start + width)

"""Any device: PyTorch operators, on blocks of columns that fit into the cache of a CPU."""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2 * 1024 * 1024
"""Bytes of the columns of all rows that are mixed together."""

LONG = 64 * 1024
"""Bytes of a row that is worth an operator of its own."""


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix ``(batch, n)`` tensors as ``vicinal.mixing.kernels.mix`` does."""
    if x.is_cpu and out.dtype == x.dtype == lam.dtype and x.nbytes >= LONG * len(x):
        _mix_long_rows(out, x, other, partner.tolist(), lam.tolist())
        return
    keep = lam[:, None]
    # 0 * inf is nan and -0.0 + 0.0 is 0.0: only a selection leaves a row unchanged.
    select = not lam.is_cpu or bool((lam == 1).any())
    gathered = None  # one buffer for all blocks, since new memory has to be cleared by the system
    for columns in _blocks(x):
        own, target = x[:, columns], out[:, columns]
        if gathered is None or gathered.shape != own.shape:
            gathered = x.new_empty(own.shape)
        torch.index_select(other[:, columns], 0, partner, out=gathered)
        if out.dtype == x.dtype == lam.dtype and not select:
            torch.lerp(gathered, own, keep, out=target)
            continue
        blend = gathered.to(lam.dtype).lerp_(own.to(lam.dtype), keep)
        if out.dtype == torch.uint8:
            blend.round_()
        if select:
            blend = torch.where(keep == 1, own.to(out.dtype), blend.to(out.dtype))
        target.copy_(blend)


def _mix_long_rows(
    out: Tensor, x: Tensor, other: Tensor, partner: list[int], lam: list[float]
) -> None:
    """Mix row by row; in place, a row is overwritten only after the last row that needs it."""
    own, others, new = x.unbind(0), other.unbind(0), out.unbind(0)
    in_place, paired = (
        each.data_ptr() == x.data_ptr() and each.stride() == x.stride() for each in (out, other)
    )
    left = [
        k != 1 and not (paired and i == j)
        for i, (j, k) in enumerate(zip(partner, lam, strict=True))
    ]
    if not (in_place and paired):
        for i, j in enumerate(partner):
            if left[i]:
                torch.lerp(others[j], own[i], lam[i], out=new[i])
            elif not in_place:
                new[i].copy_(own[i])
        return
    needed = [0] * len(own)  # how many rows that are left have this one as their partner
    for i, j in enumerate(partner):
        needed[j] += left[i]
    for start in range(len(own)):
        i = start
        while left[i] and needed[i] == 0:
            torch.lerp(own[partner[i]], own[i], lam[i], out=own[i])
            left[i] = False
            i = partner[i]
            needed[i] -= 1
    for start in range(len(own)):  # cycles are left: each begins with a copy of one row
        first, i = own[start].clone() if left[start] else own[start], start
        while left[i]:
            j = partner[i]
            torch.lerp(first if j == start else own[j], own[i], lam[i], out=own[i])
            left[i] = False
            i = j


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels.transposed`` does."""
    # The values of partner are read on a CPU only, since reading them would synchronize a GPU.
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

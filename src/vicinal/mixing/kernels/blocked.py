"""CPU: PyTorch operators on blocks that fit into the cache, without new buffers.

Long rows are blended one by one in the order of their partners, so that each row is read from
memory once and written once. Short rows are gathered and blended in blocks of columns.
"""

import math
import threading
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

LONG = 64 * 1024
"""Bytes of a row for which moving it takes longer than starting an operator."""

BLOCK = 8 * 1024 * 1024
"""Bytes of the columns of all rows that are blended together, so that they fit into the cache."""

Blend = Callable[[Tensor, Tensor, float, Tensor], None]

_NARROW = (torch.float16, torch.bfloat16, torch.uint8)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix as ``vicinal.mixing.kernels`` says."""
    if x.numel() == 0:
        return
    is_long = _is_long(x)
    if is_long and x.dtype not in _NARROW:
        _mix_walking(out, x, other, partner, lam)
        return
    views = as_rows(x, out, other)
    if views is None:  # rows with gaps: short or narrow, so that copies cost less than a walk
        dense = torch.empty(x.shape, dtype=out.dtype, device=x.device)
        mix(dense, x.contiguous(), other.contiguous(), partner, lam)
        out.copy_(dense)
    else:
        way = _mix_walking if is_long else _mix_columns
        way(views[1], views[0], views[2], partner, lam)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels`` says."""
    if g.numel() == 0:
        return
    views = as_rows(out, g)
    if views is None:  # rows with gaps
        dense = torch.empty(g.shape, dtype=out.dtype, device=g.device)
        transposed(dense, g.contiguous(), partner, lam)
        out.copy_(dense)
    else:
        _transposed_columns(views[0], views[1], partner, lam)


def _mix_walking(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    met, keep = partner.tolist(), lam.tolist()
    own, others, new = x.unbind(0), other.unbind(0), out.unbind(0)
    blend = _wide_blend if x.dtype == torch.uint8 else _blend
    if out is not x:
        for i in _chains(met) if other is x else range(len(own)):
            if keep[i] == 1 or (other is x and met[i] == i):
                new[i].copy_(own[i])
            else:
                blend(others[met[i]], own[i], keep[i], new[i])
    elif other is x:
        _mix_walking_in_place(own, met, keep, blend)
    else:
        for i, row in enumerate(own):
            if keep[i] != 1:
                blend(others[met[i]], row, keep[i], row)


def _mix_walking_in_place(
    rows: tuple[Tensor, ...],
    met: list[int],
    keep: list[float],
    blend: Blend,
) -> None:
    """Overwrite each row after its last reader."""
    left = [keep[i] != 1 and met[i] != i for i in range(len(rows))]
    readers = [0] * len(rows)
    for i, j in enumerate(met):
        readers[j] += left[i]
    for start in range(len(rows)):
        i = start
        while left[i] and readers[i] == 0:
            blend(rows[met[i]], rows[i], keep[i], rows[i])
            left[i] = False
            i = met[i]
            readers[i] -= 1
    # What is left are rings, in which each row has one reader: open each by a copy of one row.
    for start in range(len(rows)):
        if not left[start]:
            continue
        first, i = rows[start].clone(), start
        while left[i]:
            left[i] = False
            blend(first if met[i] == start else rows[met[i]], rows[i], keep[i], rows[i])
            i = met[i]


def _chains(met: list[int]) -> Iterator[int]:
    """Yield every row once, each followed by its partner where that is still to come."""
    seen = [False] * len(met)
    for start in range(len(met)):
        i = start
        while not seen[i]:
            seen[i] = True
            yield i
            i = met[i]


def _blend(met: Tensor, own: Tensor, keep: float, out: Tensor) -> None:
    # A number as weight is not rounded to a narrow type, and the arithmetic is done in float32.
    torch.lerp(met, own, keep, out=out)


def _wide_blend(met: Tensor, own: Tensor, keep: float, out: Tensor) -> None:
    wide = _buffer("met", met.shape, torch.float32).copy_(met)
    torch.lerp(wide, _buffer("own", own.shape, torch.float32).copy_(own), keep, out=wide)
    out.copy_(wide if out.dtype.is_floating_point else wide.round_())


def _mix_columns(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Blend short rows, ``(batch, n)``; rows that keep everything are not touched."""
    rows = None
    if float(lam.max()) == 1:
        if out is not x:
            out.copy_(x)
        rows = (lam != 1).nonzero().flatten()
        if len(rows) == 0:
            return
        partner, lam = partner[rows], lam[rows]
        if int(rows[-1]) == len(rows) - 1:  # the first rows, as mix_rate leaves them
            out, x, rows = out[: len(lam)], x[: len(lam)], None
    straight = rows is None and x.dtype == out.dtype
    weight: Tensor | float = lam[:, None]
    if x.dtype != lam.dtype:
        # A number is not rounded to a narrow type, as a tensor would have to be.
        straight = straight and x.dtype != torch.uint8 and _is_one_for_all(lam)
        weight = float(lam[0]) if straight else weight
    for out_c, x_c, other_c in _blocks(out, x, other):
        met = _gathered(other_c, partner)
        if straight:
            torch.lerp(met, x_c, weight, out=out_c)
            continue
        own = x_c if rows is None else x_c.index_select(0, rows)
        blend = torch.lerp(met.to(lam.dtype), own.to(lam.dtype), weight)
        blend = (blend.round_() if out.dtype == torch.uint8 else blend).to(out.dtype)
        if rows is None:
            out_c.copy_(blend)
        else:
            out_c.index_copy_(0, rows, blend)


def _transposed_columns(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    keep, give = lam[:, None], (1 - lam)[:, None]
    readers = _inverse(partner)
    if readers is not None and _is_one_for_all(lam):  # what a row gives, it gets of its reader
        _mix_columns(out, g, g, readers, lam)
        return
    if readers is not None:  # a blend of each row with its reader, by a share that is the reader's
        give = give[readers]
    nothing = give == 0 if float(lam.max()) == 1 else None  # of nan, too
    for out_c, g_c in _blocks(out, g):
        rows = g_c.to(lam.dtype)
        given = rows * give if readers is None else _gathered(rows, readers).mul_(give)
        if nothing is not None:
            given.masked_fill_(nothing, 0)
        if readers is None:
            out_c.copy_((rows * keep).index_add_(0, partner, given))
        else:
            out_c.copy_(given.addcmul_(rows, keep))


def _is_one_for_all(lam: Tensor) -> bool:
    low, high = torch.aminmax(lam)
    return float(low) == float(high)


def _inverse(partner: Tensor) -> Tensor | None:
    """Return the reader of each row, or None if ``partner`` is not a permutation."""
    inverse = torch.full_like(partner, -1).scatter_(
        0, partner, torch.arange(len(partner), device=partner.device)
    )
    return None if bool((inverse < 0).any()) else inverse


def _blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same columns of ``(rows, n)`` tensors, as many as a cache holds."""
    rows, columns = tensors[0].shape
    width = max(64, BLOCK // (rows * tensors[-1].element_size()))
    if width >= columns:
        yield tensors
        return
    for start in range(0, columns, width):
        yield tuple(one[:, start : start + width] for one in tensors)


_kept = threading.local()


def _gathered(rows: Tensor, index: Tensor) -> Tensor:
    """Return ``rows[index]`` in a buffer that the next call uses again."""
    buffer = _buffer("met", (index.shape[0], rows.shape[1]), rows.dtype)
    return torch.index_select(rows, 0, index, out=buffer)


def _buffer(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return memory of that name which the next call uses again."""
    memory, buffer = getattr(_kept, name, (None, None))
    if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
        size = math.prod(shape) * dtype.itemsize
        with torch.inference_mode(False):  # what is kept has to serve outside of it too
            if memory is None or len(memory) < size:
                memory = torch.empty(size, dtype=torch.uint8, device="cpu")
            buffer = memory[:size].view(dtype).view(shape)
        if size <= 2 * BLOCK:
            setattr(_kept, name, (memory, buffer))
    return buffer


def _is_long(x: Tensor) -> bool:
    return x.numel() * x.element_size() >= LONG * x.shape[0]


def as_rows(*tensors: Tensor) -> list[Tensor] | None:
    """Return ``(batch, n)`` views whose columns correspond, or None where there are none.

    The dimensions of a row are taken in the order that they have in memory, so that channels_last
    is as good as contiguous. What is the first tensor has the first view.
    """
    if all(one.is_contiguous() for one in tensors):
        views = [tensors[0].view(tensors[0].shape[0], -1)]
        for one in tensors[1:]:
            views.append(views[0] if one is tensors[0] else one.view(len(one), -1))
        return views
    order = sorted(range(1, tensors[0].dim()), key=tensors[0].stride, reverse=True)
    views = []
    for one in tensors:
        if views and one is tensors[0]:
            views.append(views[0])
            continue
        ordered = one.permute(0, *order)
        if one.dim() > 1 and not ordered[0].is_contiguous():
            return None
        views.append(ordered.reshape(len(one), -1))
    return views

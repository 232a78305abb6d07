"""GPU: Triton kernels that mix the rows of a batch, and apply the transposed map.

Importing this module imports Triton, so import it where it is used. Tensors are on one CUDA
device, or on the CPU while Triton interprets (``TRITON_INTERPRET=1``). Nothing here waits for the
device. Results are deterministic: there are no atomics, and sums are in the order of the batch.

Values are blended in float32 (float64 for float64) without fused multiply-adds, by the same
arithmetic as ``lam * x + (1 - lam) * other[partner]`` in PyTorch, and rounded once.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 2048
"""Columns of one row that a program computes. Programs that run at the same time compute the same
columns of different rows, so partners are found in the L2 cache."""

SCRATCH_BYTES = 64 * 1024 * 1024
"""Bytes of the buffer through which a batch is mixed in place."""


@triton.jit  # type: ignore[untyped-decorator]
def _blend(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    out,
    x,
    other,
    partner,
    lam,
    batch,
    width,
    out_stride,
    x_stride,
    other_stride,
    columns: tl.constexpr,
    wide: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program % batch
    column = program // batch * columns + tl.arange(0, columns)
    inside = column < width
    keep = tl.load(lam + row).to(wide)
    source = tl.load(partner + row)
    own = tl.load(x + row * x_stride + column, mask=inside, other=0)
    blend = _unchanged(own, out, wide)
    if keep != 1:
        theirs = tl.load(other + source * other_stride + column, mask=inside, other=0)
        blend = _rounded(keep * own.to(wide) + (1 - keep) * theirs.to(wide), out)
    tl.store(out + row * out_stride + column, blend, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _add_readers(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    out,
    g,
    readers,
    starts,
    lam,
    batch,
    width,
    out_stride,
    g_stride,
    columns: tl.constexpr,
    wide: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    row = program % batch
    column = program // batch * columns + tl.arange(0, columns)
    inside = column < width
    keep = tl.load(lam + row).to(wide)
    own = tl.load(g + row * g_stride + column, mask=inside, other=0)
    total = keep * own.to(wide)
    added = 0
    at = tl.load(starts + row)
    end = tl.load(starts + row + 1)
    while at < end:
        reader = tl.load(readers + at)
        give = 1 - tl.load(lam + reader).to(wide)
        if give != 0:
            theirs = tl.load(g + reader * g_stride + column, mask=inside, other=0)
            total += give * theirs.to(wide)
            added += 1
        at += 1
    alone = (keep == 1) & (added == 0)
    total = tl.where(alone, _unchanged(own, out, wide), _rounded(total, out))
    tl.store(out + row * out_stride + column, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _unchanged(own, out, wide: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return ``own`` in the type of ``out``, bit for bit if it is the same type."""
    return own if own.dtype == out.dtype.element_ty else _rounded(own.to(wide), out)


@triton.jit
def _rounded(value, out):  # type: ignore[no-untyped-def]
    """Round to the type of ``out``; a half to the even neighbor."""
    if out.dtype.element_ty == tl.uint8:
        # From 1.5 * 2**23 on, float32 has no fractions.
        value = (value.to(tl.float32) + 12582912.0) - 12582912.0
    return value.to(out.dtype.element_ty)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix ``(batch, n)`` tensors as ``vicinal.mixing.kernels.mix`` does."""
    if out.data_ptr() != x.data_ptr():
        _mix_anew(out, x, other, partner, lam)
        return
    step = max(16, SCRATCH_BYTES // (len(out) * out.element_size()) // 16 * 16)  # stays aligned
    for first in range(0, out.shape[1], step):
        piece = slice(first, first + step)
        blend = torch.empty_like(out[:, piece], memory_format=torch.contiguous_format)
        _mix_anew(blend, x[:, piece], other[:, piece], partner, lam)
        out[:, piece].copy_(blend)


def _mix_anew(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    grid, shape, constants = _launch(out, x)
    with torch.cuda.device(out.get_device()):
        _blend[grid](
            *(out, x, other, partner.contiguous(), lam.contiguous(), *shape),
            *(out.stride(0), x.stride(0), other.stride(0), *constants),
            enable_fp_fusion=False,
        )


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels.transposed`` does.

    Row ``r`` is ``lam[r] * g[r]`` plus ``(1 - lam[i]) * g[i]`` for every reader ``i``, a row whose
    partner is ``r``, in the order of the batch.
    """
    ordered, readers = torch.sort(partner, stable=True)
    starts = torch.searchsorted(ordered, torch.arange(len(out) + 1, device=partner.device))
    grid, shape, constants = _launch(out, g)
    with torch.cuda.device(out.get_device()):
        _add_readers[grid](
            *(out, g, readers, starts, lam.contiguous(), *shape),
            *(out.stride(0), g.stride(0), *constants),
            enable_fp_fusion=False,
        )


def _launch(out: Tensor, x: Tensor) -> tuple[tuple[int], torch.Size, tuple[int, tl.dtype]]:
    """Return the grid, the shape, and the constants of a kernel from ``x`` to ``out``."""
    batch, width = out.shape
    columns = min(COLUMNS, triton.next_power_of_2(width))
    wide = tl.float64 if x.dtype == torch.float64 else tl.float32
    return (batch * triton.cdiv(width, columns),), out.shape, (columns, wide)

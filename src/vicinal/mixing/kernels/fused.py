"""Triton kernels that blend the rows of a batch, forwards and transposed.

Importing this module imports Triton, so import it where it is used. Tensors lie on one CUDA
device, or on the CPU while Triton interprets (``TRITON_INTERPRET=1``). Nothing here waits for the
device, and results are deterministic: no atomics, sums in the order of the batch.

Values are blended in float32 (float64 for float64) without fused multiply-adds, the same
arithmetic as the PyTorch expression, and rounded once. ``lam`` is the share that a row keeps.
Shapes, types and the range of ``partner`` are the caller's to check.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# A program that mixes in place holds a tile: all rows, own and partner's, of some columns.
TILE_THREADS = 1024
# A program that can read any row at any time writes a smaller block.
BLOCK_THREADS = 256
WARP_THREADS = 64 if torch.version.hip else 32
# The shortest piece of a row that DRAM delivers, and one that it is fast with.
SECTOR_BYTES, LINE_BYTES = 32, 128
# All rows of the columns that are worked on at a time: partners are then found in the L2 cache.
L2_BYTES = 8 * 1024 * 1024
# A batch that no tile can hold is mixed in place through a buffer.
SCRATCH_BYTES = 64 * 1024 * 1024


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
    unit: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
    in_place: tl.constexpr,
):
    # Width and strides count units: Triton then knows what divides them, and loads in vectors.
    # Rows change fastest: programs that run at one time share columns, so partners are in cache.
    program = tl.program_id(0).to(tl.int64)
    row_blocks = (batch + rows - 1) // rows
    strip = program // row_blocks
    row = (program % row_blocks) * rows + tl.arange(0, rows)
    exists = row < batch
    keep = tl.load(lam + row, mask=exists, other=1).to(wide)[:, None]
    source = tl.load(partner + row, mask=exists, other=0)[:, None]

    row, exists = row[:, None], exists[:, None]
    column = tl.arange(0, columns)[None, :]
    inside = column < (width - strip * (columns // unit)) * unit
    mixed = (keep != 1) & inside
    # In place, a row that keeps everything need not be read nor written.
    written = mixed if in_place else exists & inside
    column += strip * columns
    own = tl.load(x + row * x_stride * unit + column, mask=written, other=0)
    theirs = tl.load(other + source * other_stride * unit + column, mask=mixed, other=0)
    if in_place:
        # No thread may store before all threads have loaded.
        tl.debug_barrier()
    blend = keep * own.to(wide) + (1 - keep) * theirs.to(wide)
    # 0 * inf is nan: only a selection leaves a row untouched.
    kept = own if own.dtype == out.dtype.element_ty else _rounded(own.to(wide), out)
    blend = tl.where(keep == 1, kept, _rounded(blend, out))
    tl.store(out + row * out_stride * unit + column, blend, mask=written)


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
    unit: tl.constexpr,
    columns: tl.constexpr,
    wide: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    strip, row = program // batch, program % batch
    column = tl.arange(0, columns)
    inside = column < (width - strip * (columns // unit)) * unit
    column += strip * columns
    keep = tl.load(lam + row).to(wide)
    own = tl.load(g + row * g_stride * unit + column, mask=inside, other=0)
    total = keep * own.to(wide)
    met = 0
    at = tl.load(starts + row)
    end = tl.load(starts + row + 1)
    while at < end:
        reader = tl.load(readers + at)
        give = 1 - tl.load(lam + reader).to(wide)
        if give != 0:
            theirs = tl.load(g + reader * g_stride * unit + column, mask=inside, other=0)
            total += give * theirs.to(wide)
            met += 1
        at += 1
    kept = own if own.dtype == out.dtype.element_ty else _rounded(own.to(wide), out)
    total = tl.where((keep == 1) & (met == 0), kept, _rounded(total, out))
    tl.store(out + row * out_stride * unit + column, total, mask=inside)


@triton.jit
def _rounded(value, out):  # type: ignore[no-untyped-def]
    if out.dtype.element_ty == tl.uint8:
        # 1.5 * 2**23: beside it float32 has no fractions, and rounds to even.
        value = (value.to(tl.float32) + 12582912.0) - 12582912.0
    return value.to(out.dtype.element_ty)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Write ``lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]`` into row ``i`` of ``out``.

    Rows that keep everything (``lam`` is 1) are copied bit for bit. In place, a batch that fits in
    tiles is read once and written once, whatever the permutation.

    Args:
        out: ``(batch, ...)``, floating point or uint8 (rounded half to even). May be ``x`` itself.
        x: ``(batch, ...)``, floating point or uint8.
        other: ``(rows, ...)`` of the type of ``x``, where partners come from. May be ``x`` itself.
        partner: ``(batch,)`` int64, row indices into ``other``. Need not be a permutation.
        lam: ``(batch,)`` float32 or float64, values in ``[0, 1]``.
    """
    if out.numel() == 0:
        return
    order = _memory_order(out)
    own = _as_rows(x, order)
    source = own if other is x else _as_rows(other, order)
    target = _rows_to_write(out, order)
    _mix_rows(target, own, source, partner.contiguous(), lam.contiguous())
    _hand_over(target, out, order)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Write the adjoint of ``mix(..., other=x)`` at ``g`` into ``out``: the gradient by ``x``.

    Row ``r`` becomes ``lam[r] * g[r]`` plus ``(1 - lam[i]) * g[i]`` for every reader ``i``, a row
    whose partner is ``r``, in the order of the batch.

    Args:
        out: ``(batch, ...)``, floating point. Shares no memory with ``g``.
        g: ``(batch, ...)``, floating point.
        partner: ``(batch,)`` int64, row indices into the batch. Need not be a permutation.
        lam: ``(batch,)`` float32 or float64, values in ``[0, 1]``.
    """
    if out.numel() == 0:
        return
    order = _memory_order(out)
    given, target = _as_rows(g, order), _rows_to_write(out, order)
    batch, width = target.shape
    ordered, readers = torch.sort(partner, stable=True)
    starts = torch.searchsorted(ordered, torch.arange(batch + 1, device=partner.device))
    size, unit = _wide(given).primitive_bitwidth // 8, _unit(target, given)
    _, columns = out_of_place_block(1, batch, width, size, unit)
    sizes = (batch, *(n // unit for n in (width, target.stride(0), given.stride(0))))
    with torch.cuda.device(out.get_device()):
        _add_readers[(batch * triton.cdiv(width, columns),)](
            *(target, given, readers, starts, lam.contiguous(), *sizes),
            *(unit, columns, _wide(given)),
            num_warps=_warps(columns, size, unit),
            enable_fp_fusion=False,
        )
    _hand_over(target, out, order)


def _mix_rows(target: Tensor, own: Tensor, source: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix ``(batch, n)`` rows, elements side by side."""
    batch, width = target.shape
    size, unit = max(target.element_size(), own.element_size()), _unit(target, own, source)
    in_place = _same_rows(target, own)
    block = out_of_place_block(batch, len(source), width, size, unit)
    if _overlap(target, source):
        among_itself = in_place and _same_rows(target, source)
        tile = in_place_tile(batch, width, size, unit) if among_itself else None
        if tile is None:
            _mix_through_scratch(target, own, source, partner, lam)
            return
        block = tile
    rows, columns = block
    unit = math.gcd(unit, columns)  # a tile of many rows can have fewer columns
    strides = (t.stride(0) for t in (target, own, source))
    with torch.cuda.device(target.get_device()):
        _blend[(triton.cdiv(batch, rows) * triton.cdiv(width, columns),)](
            *(target, own, source, partner, lam),
            *(batch, *(n // unit for n in (width, *strides))),
            *(unit, rows, columns, _wide(own), in_place),
            num_warps=_warps(rows * columns, size, unit),
            enable_fp_fusion=False,
        )


def _mix_through_scratch(
    target: Tensor, own: Tensor, source: Tensor, partner: Tensor, lam: Tensor
) -> None:
    batch, width = target.shape
    strip = _columns(SCRATCH_BYTES, batch, width, target.element_size())
    scratch = target.new_empty(batch, min(strip, width))
    for first in range(0, width, strip):
        piece = slice(first, first + strip)
        blend = scratch[:, : width - first]
        _mix_rows(blend, own[:, piece], source[:, piece], partner, lam)
        target[:, piece].copy_(blend)


def in_place_tile(batch: int, width: int, size: int, unit: int) -> tuple[int, int] | None:
    """Rows and columns, powers of two, of a tile that holds a batch; None where none can.

    Args:
        batch: number of rows.
        width: elements in a row.
        size: bytes of an element.
        unit: elements that lie aligned in memory.
    """
    rows, whole = triton.next_power_of_2(batch), triton.next_power_of_2(width)
    block, tile = (n * _per_thread(size, unit) // rows for n in (BLOCK_THREADS, TILE_THREADS))
    columns = min(max(block, LINE_BYTES // size), tile)
    return None if columns < min(SECTOR_BYTES // size, whole) else (rows, min(columns, whole))


def out_of_place_block(
    batch: int, others: int, width: int, size: int, unit: int
) -> tuple[int, int]:
    """Rows and columns, powers of two, for a program to write where it may read any other row."""
    block = BLOCK_THREADS * _per_thread(size, unit)
    columns = min(block, _columns(L2_BYTES, max(batch, others), width, size))
    return min(triton.next_power_of_2(batch), block // columns), columns


def _columns(budget: int, batch: int, width: int, size: int) -> int:
    """Columns, a power of two, that take ``budget`` bytes over all rows, but a line at least."""
    columns = max(budget // batch, LINE_BYTES) // size
    return min(1 << (columns.bit_length() - 1), int(triton.next_power_of_2(width)))


def _per_thread(size: int, unit: int) -> int:
    """Elements a thread: 64 bytes, but at most 8 loads, since each address takes registers too."""
    return min(64 // size, 8 * unit)


def _warps(elements: int, size: int, unit: int) -> int:
    threads = min(elements // _per_thread(size, unit), TILE_THREADS)
    return max(1, threads // WARP_THREADS)


def _unit(*rows: Tensor) -> int:
    """Elements, a power of two, that divide width and strides; 1 if a tensor starts unaligned."""
    if any(t.data_ptr() % 16 for t in rows):
        return 1
    return math.gcd(16, rows[0].shape[1], *(t.stride(0) for t in rows))


def _wide(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def _memory_order(t: Tensor) -> list[int]:
    """Dimensions as they lie in memory, the batch first: channels_last is read as it is stored."""
    return [0, *sorted(range(1, t.dim()), key=t.stride, reverse=True)]


def _as_rows(t: Tensor, order: list[int]) -> Tensor:
    """``(batch, n)``, elements of a row side by side: a view where memory allows, or a copy."""
    rows = t.permute(order).reshape(len(t), -1)
    return rows if rows.shape[1] == 1 or rows.stride(1) == 1 else rows.contiguous()


def _rows_to_write(out: Tensor, order: list[int]) -> Tensor:
    rows = _as_rows(out, order)
    return rows if rows.data_ptr() == out.data_ptr() else torch.empty_like(rows)


def _hand_over(target: Tensor, out: Tensor, order: list[int]) -> None:
    if target.data_ptr() != out.data_ptr():
        rows = out.permute(order)
        rows.copy_(target.view(rows.shape))


def _same_rows(a: Tensor, b: Tensor) -> bool:
    return (a.data_ptr(), a.stride(0), a.dtype) == (b.data_ptr(), b.stride(0), b.dtype)


def _overlap(a: Tensor, b: Tensor) -> bool:
    ends = [
        t.data_ptr() + ((len(t) - 1) * t.stride(0) + t.shape[1]) * t.element_size() for t in (a, b)
    ]
    return a.data_ptr() < ends[1] and b.data_ptr() < ends[0]

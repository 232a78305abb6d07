"""CPU: a loop in C for mixing and one for its transpose, run on PyTorch's own threads.

They are compiled when vicinal is installed, on Linux on x86-64 with a C compiler, and run on
processors with AVX2 and with PyTorch 2.10 or later. They take float32, bfloat16 and uint8 rows.
"""

import ctypes
import functools
import zlib
from collections.abc import Sequence
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vicinal.mixing.plain import is_plain

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.uint8: 2}
"""Types, as the C file numbers them."""

_NO_MEMORY, _NO_SUCH_ROW = 1, 2


class _Library(NamedTuple):
    loops: ctypes.CDLL
    parallel_for: int


def is_available() -> bool:
    """Return whether the loops were compiled for this processor and PyTorch can run them."""
    return _library() is not None


def takes(rows: Sequence[Tensor], partner: Tensor, lam: Tensor) -> bool:
    """Return whether the loop for these tensors, ``(out, x, other)`` or ``(out, g)``, exists.

    C trusts their addresses, so everything is checked here.
    """
    out, x = rows[:2]
    return (
        x.dtype in _KINDS
        and (len(rows) == 3 or x.dtype != torch.uint8)
        and (partner.dtype, lam.dtype) == (torch.int64, torch.float32)
        and partner.shape == lam.shape == x.shape[:1] == out.shape[:1]
        and all(one.dtype == x.dtype and one.shape[1:] == x.shape[1:] for one in rows)
        and all(is_plain(one) and not one.is_neg() for one in (*rows, partner, lam))
    )


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix ``(batch, n)`` tensors as ``vicinal.mixing.kernels.mix`` does.

    Raises:
        IndexError: if a partner is not a row of ``other``.
    """
    _run("vicinal_mix", (out, x, other), partner, lam, len(other))


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels.transposed`` does; see ``mix``."""
    _run("vicinal_transposed", (out, g), partner, lam)


def _run(name: str, rows: Sequence[Tensor], partner: Tensor, lam: Tensor, *more: int) -> None:
    library = _library()
    assert library is not None
    partner, lam = partner.contiguous(), lam.double().contiguous()
    addresses = [number for one in rows for number in (one.data_ptr(), one.stride(0))]
    status = getattr(library.loops, name)(
        *(library.parallel_for, torch.get_num_threads(), _KINDS[rows[0].dtype]),
        *(*rows[0].shape, partner.data_ptr(), lam.data_ptr(), *addresses, *more),
    )
    if status == _NO_MEMORY:
        raise MemoryError("mixing could not allocate memory for the order of the rows.")
    if status == _NO_SUCH_ROW:
        raise IndexError(
            f"partner: expected row numbers below {len(rows[-1])}, the size of the batch, got a "
            "number outside of it."
        )


@functools.cache
def _library() -> _Library | None:
    """Load the loops, if there is a library that was compiled from the C file as it is now."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    source = Path(__file__).with_name("mixing.c")
    try:
        library = source.with_name(f"mixing-{zlib.crc32(source.read_bytes()):08x}.so")
        loops = ctypes.CDLL(str(library))
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        parallel_for = ctypes.cast(torch_cpu.torch_parallel_for, c_void_p).value
    except (OSError, AttributeError):
        return None
    shared: tuple[Any, ...] = (c_void_p, c_int64, c_int, c_int64, c_int64, c_void_p, c_void_p)
    loops.vicinal_mix.argtypes = (*shared, *(c_void_p, c_int64) * 3, c_int64)
    loops.vicinal_transposed.argtypes = (*shared, *(c_void_p, c_int64) * 2)
    return _Library(loops, parallel_for or 0)

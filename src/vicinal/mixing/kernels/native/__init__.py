"""CPU: a loop in C for mixing and one for its transpose, run on PyTorch's own threads.

They are compiled when vicinal is installed, on Linux on x86-64 with a C compiler, and run on
processors with AVX2 and with PyTorch 2.10 or later. They take dense float32, float64 and bfloat16
rows, and uint8 mixed into uint8 or float32.
"""

import ctypes
import functools
import zlib
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vicinal.mixing.kernels.blocked import as_rows
from vicinal.mixing.plain import is_plain

_KINDS = {
    (torch.float32, torch.float32): 0,
    (torch.float64, torch.float64): 1,
    (torch.bfloat16, torch.bfloat16): 2,
    (torch.uint8, torch.uint8): 3,
    (torch.uint8, torch.float32): 4,
}
"""Types of input and output, as the C file numbers them."""

_NO_MEMORY, _NO_SUCH_ROW = 1, 2


class _Library(NamedTuple):
    loops: ctypes.CDLL
    parallel_for: int


def is_available() -> bool:
    """Return whether the loops were compiled for this processor and PyTorch can run them."""
    return _library() is not None


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> bool:
    """Mix as ``vicinal.mixing.kernels`` says. Return False if the loop does not take the tensors.

    Raises:
        IndexError: if a partner is not a row of ``other``.
    """
    return _run("vicinal_mix", (out, x, other), partner, lam, len(other))


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> bool:
    """Apply the transposed map as ``vicinal.mixing.kernels`` says; otherwise as ``mix``."""
    return g.dtype != torch.uint8 and _run("vicinal_transposed", (out, g), partner, lam)


def _run(name: str, tensors: tuple[Tensor, ...], partner: Tensor, lam: Tensor, *more: int) -> bool:
    """Run a loop if it takes these tensors. C trusts their addresses, so all is checked here."""
    library, (out, x, *others) = _library(), tensors
    kind = _KINDS.get((x.dtype, out.dtype))
    if library is None or kind is None or x.numel() == 0:
        return False
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    fits = partner.dtype == torch.int64 and lam.dtype == wide
    fits = fits and partner.shape == lam.shape == x.shape[:1] == out.shape[:1]
    fits = fits and all(one.dtype == x.dtype for one in others)
    fits = fits and all(one.shape[1:] == x.shape[1:] for one in tensors)
    if not fits or not all(is_plain(one) and not one.is_neg() for one in (*tensors, partner, lam)):
        return False
    views = as_rows(*tensors)
    if views is None:
        return False
    partner, lam = partner.contiguous(), lam.contiguous()
    rows = [number for one in views for number in (one.data_ptr(), one.stride(0))]
    status = getattr(library.loops, name)(
        *(library.parallel_for, torch.get_num_threads(), kind, *views[0].shape),
        *(partner.data_ptr(), lam.data_ptr(), *rows, *more),
    )
    if status == _NO_MEMORY:
        raise MemoryError("mixing could not allocate memory for the order of the rows.")
    if status == _NO_SUCH_ROW:
        raise IndexError(f"mixing needs partners that are rows of a batch of {len(tensors[-1])}.")
    return True


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

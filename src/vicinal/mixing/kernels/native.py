"""CPU: a loop in C, compiled when vicinal was installed, on PyTorch's own threads.

What it does not take is left to the PyTorch operators of ``blocked``: float16, rows with gaps,
uint8 into types other than uint8 and float32.
"""

import ctypes
import functools
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vicinal.mixing.kernels import blocked

_KINDS = {
    (torch.float32, torch.float32): 0,
    (torch.float64, torch.float64): 1,
    (torch.bfloat16, torch.bfloat16): 2,
    (torch.uint8, torch.uint8): 3,
    (torch.uint8, torch.float32): 4,
}
"""Types of what goes in and what comes out, as the C file numbers them."""

_MOST = 2**31 - 1
"""Rows that it can number."""


class _Compiled(NamedTuple):
    mix: Any
    transposed: Any
    parallel_for: int


def is_there() -> bool:
    """Say whether the loop was built for this processor, and PyTorch can run it on its threads.

    It is built for Linux on x86-64 where a C compiler is at hand when vicinal is installed, and
    runs on processors with AVX2 and with PyTorch from 2.10 on.
    """
    return _compiled() is not None


@functools.cache
def _compiled() -> _Compiled | None:
    capability = torch.backends.cpu.get_cpu_capability().lower()
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        parallel_for = ctypes.cast(torch_cpu.torch_parallel_for, ctypes.c_void_p).value
        loop = ctypes.CDLL(str(Path(__file__).with_name(f"native-{capability}.so")))
        source = Path(__file__).with_name("native.c").read_bytes()
        mix, transposed = loop.vicinal_mix, loop.vicinal_transposed
        compiled_from = ctypes.c_uint32(loop.vicinal_source()).value
    except (OSError, AttributeError):
        return None
    if compiled_from != zlib.crc32(source):  # of before an update that nobody installed
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    rows, shares = (address, number), (address, address, number, number)
    mix.argtypes = (address, ctypes.c_int, *rows, *rows, *rows, number, *shares)
    transposed.argtypes = (address, ctypes.c_int, *rows, *rows, *shares)
    return _Compiled(mix, transposed, parallel_for or 0)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix as ``vicinal.mixing.kernels`` says."""
    compiled, layout = _compiled(), _layout(x, partner, lam, out, other)
    if compiled is None or layout is None:
        blocked.mix(out, x, other, partner, lam)
        return
    kind, columns, (own, new, others) = layout
    partner, lam = partner.contiguous(), lam.to(_wide(x)).contiguous()
    shares = partner.data_ptr(), lam.data_ptr(), len(x), columns
    status = compiled.mix(compiled.parallel_for, kind, *new, *own, *others, len(other), *shares)
    _check(status, len(other))


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels`` says."""
    compiled, layout = _compiled(), _layout(g, partner, lam, out)
    if compiled is None or layout is None or g.dtype == torch.uint8:
        blocked.transposed(out, g, partner, lam)
        return
    kind, columns, (given, new) = layout
    partner, lam = partner.contiguous(), lam.to(_wide(g)).contiguous()
    shares = partner.data_ptr(), lam.data_ptr(), len(g), columns
    status = compiled.transposed(compiled.parallel_for, kind, *new, *given, *shares)
    _check(status, len(g))


def _layout(
    x: Tensor, partner: Tensor, lam: Tensor, out: Tensor, other: Tensor | None = None
) -> tuple[int, int, list[tuple[int, int]]] | None:
    """Return the kind of types, a row's length, and where each tensor's rows begin and how far
    apart they are; or None for what is not ours to take, or nobody's.

    An address is trusted in C, so here is the place to look at all that it stands for.
    """
    kind = _KINDS.get((x.dtype, out.dtype))
    tensors = (x, out) if other is None else (x, out, other)
    if kind is None or _is_recorded() or not all(map(_is_memory, (*tensors, partner, lam))):
        return None
    rows, shape = len(x), x.shape
    fits = out.shape == shape and partner.dtype == torch.int64 and len(partner) == len(lam) == rows
    if other is not None:
        fits = fits and other.shape[1:] == shape[1:] and other.dtype == x.dtype
    if not fits or x.numel() == 0 or max(rows, len(tensors[-1])) > _MOST:
        return None
    if all(one.is_contiguous() for one in tensors):
        columns = x.numel() // rows
        return kind, columns, [(one.data_ptr(), columns) for one in tensors]
    views = blocked.as_rows(*tensors)
    if views is None:
        return None
    return kind, views[0].shape[1], [(one.data_ptr(), one.stride(0)) for one in views]


def _is_memory(one: Tensor) -> bool:
    """Say whether the values of a tensor are what lies at its address."""
    plain = type(one) is Tensor or type(one) is torch.nn.Parameter
    return plain and one.is_cpu and not one.is_neg() and one.data_ptr() != 0


def _is_recorded() -> bool:
    """Say whether somebody records the operators that run, who would miss a loop in C."""
    recorded: bool = torch._C._len_torch_dispatch_stack() > 0
    return recorded or torch._C._get_tracing_state() is not None


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _check(status: int, rows: int) -> None:
    if status == 1:
        raise MemoryError("mixing found no memory for the order of its rows.")
    if status:
        raise IndexError(f"mix needs partners that are rows of the batch, which has {rows} rows.")

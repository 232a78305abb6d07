"""CPU: loops in C, compiled when vicinal was installed, on PyTorch's own threads.

What they do not take is left to PyTorch operators, those of ``blocked`` for mixing: float16, rows
with gaps, uint8 into types other than uint8 and float32; scores of more than two dimensions.
"""

import ctypes
import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch._C import (
    DispatchKey,
    _are_functorch_transforms_active,
    _dispatch_tls_is_dispatch_key_included,
    _is_tracing,
    _len_torch_dispatch_stack,
    _len_torch_function_stack,
)
from torch.autograd import forward_ad, profiler
from torch.autograd.graph import increment_version
from torch.compiler import is_dynamo_compiling

from vicinal.mixing.kernels import blocked
from vicinal.mixing.kernels.reference import wide_type
from vicinal.mixing.memory import new_like

_KINDS = {
    (torch.float32, torch.float32): 0,
    (torch.float64, torch.float64): 1,
    (torch.bfloat16, torch.bfloat16): 2,
    (torch.uint8, torch.uint8): 3,
    (torch.uint8, torch.float32): 4,
}
"""Types of what goes in and what comes out, as the C file numbers them."""

_AT_ONCE = {taken for taken, given in _KINDS if taken == given}
"""Types that are mixed at once. To C, bytes of less than 8 bits look like those of 8."""

_WIDE = {torch.float32: 0, torch.float64: 1}
"""Types of shares, as the C file asks for them."""

_MOST = 2**31 - 1
"""Rows that it can number."""


class _Compiled(NamedTuple):
    mix: Callable[..., int]
    at_once: Callable[..., int]
    transposed: Callable[..., int]
    likelihood: Callable[..., int]
    slope: Callable[..., int]
    beta: Callable[..., int]
    parallel_for: int
    tensor_of: int


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
        loop = ctypes.PyDLL(str(Path(__file__).with_name(f"native-{capability}.so")))
        sources = [one.read_bytes() for one in sorted(Path(__file__).parent.glob("*.[ch]"))]
        compiled_from = ctypes.c_uint32(loop.vicinal_source()).value
        function, look = loop.vicinal_function, loop.vicinal_tensor_of
    except (OSError, AttributeError):
        return None
    if compiled_from != zlib.crc32(b"".join(sources)):  # of before an update that nobody installed
        return None
    function.argtypes, function.restype = [ctypes.c_char_p], ctypes.py_object
    functions = {name: function(name.encode()) for name in _Compiled._fields[:-2]}
    look.argtypes, look.restype = [ctypes.py_object], ctypes.c_void_p
    exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
    return _Compiled(**functions, parallel_for=parallel_for or 0, tensor_of=look(exchange) or 0)


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Mix as ``vicinal.mixing.kernels`` says."""
    compiled, layout = _compiled(), _layout(x, partner, lam, out, other)
    if compiled is None or layout is None:
        blocked.mix(out, x, other, partner, lam)
        return
    kind, columns, (own, new, others) = layout
    partner, lam = partner.contiguous(), _wide(lam, x).contiguous()
    shares = partner.data_ptr(), lam.data_ptr(), x.shape[0], columns, torch.get_num_threads()
    status = compiled.mix(compiled.parallel_for, kind, *new, *own, *others, other.shape[0], *shares)
    if status:
        raise _fault(status, len(other))


def mix_at_once(x: Tensor, partner: Tensor, lam: Tensor, *, in_place: bool) -> Tensor | None:
    """Mix a batch with itself where all is as plain as it mostly is, and asks for no gradient.

    For this way few questions are asked, which is what counts for a small batch, and for a large
    one that has driven this code out of the cache.

    Args:
        x: ``(batch, ...)``.
        partner: ``(batch,)`` int64.
        lam: ``(batch,)`` floating point.
        in_place: whether to write into ``x``.

    Returns:
        The blends; None where nothing was done. What is wrong is for others to say.
    """
    # The compiler takes this one for true, and so follows us no further.
    if is_dynamo_compiling() or is_recorded() or forward_ad._current_level >= 0:
        return None
    compiled = _compiled()
    if compiled is None or _are_functorch_transforms_active() or profiler._is_profiler_enabled:
        return None
    plain = type(x) is type(partner) is type(lam) is Tensor and x.dtype in _AT_ONCE
    plain = plain and not (x.is_neg() or lam.is_neg() or x.requires_grad or lam.requires_grad)
    if not in_place:  # no memory is asked for in vain
        plain = plain and x.is_cpu and x.layout is torch.strided and x.is_contiguous()
        plain = plain and not x.is_nested
    if not plain:
        return None
    out = x if in_place else new_like(x, x.dtype)
    how = compiled.parallel_for, compiled.tensor_of, torch.get_num_threads()
    if compiled.at_once(*how, out, x, partner, lam):  # C looks at all the rest
        return None
    if in_place:
        increment_version(x)  # PyTorch has not seen it
    return out


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed map as ``vicinal.mixing.kernels`` says."""
    compiled, layout = _compiled(), _layout(g, partner, lam, out)
    if compiled is None or layout is None or g.dtype == torch.uint8:
        blocked.transposed(out, g, partner, lam)
        return
    kind, columns, (given, new) = layout
    partner, lam = partner.contiguous(), _wide(lam, g).contiguous()
    shares = partner.data_ptr(), lam.data_ptr(), len(g), columns
    status = compiled.transposed(compiled.parallel_for, kind, *new, *given, *shares)
    if status:
        raise _fault(status, len(g))


def likelihood(
    exponentials: Tensor, classes: Tensor, factors: Tensor, least: float, *, each: bool
) -> tuple[Tensor, Tensor] | None:
    """Return the sum of ``factors * log(probability)`` at classes, and the sums of exponentials.

    Args:
        exponentials: ``(batch, classes)`` float32 or float64: of the scores.
        classes: ``(batch, k)`` int64.
        factors: ``(batch, k)``, of the type of ``exponentials``.
        least: exponentials of classes from this on, and sums of all up to its inverse, are fine.
        each: whether to answer with a sum for each example, not with one of all.

    Returns:
        ``(batch,)`` or ``()``, and ``(batch, 1)``. None for what is not ours to take.

    Raises:
        FloatingPointError: if they are not fine, or a class is out of range.
    """
    scores = _scores(exponentials, classes, factors)
    if scores is None:
        return None
    compiled, arguments = scores
    totals = exponentials.new_empty((len(exponentials), 1))
    value = exponentials.new_empty(len(exponentials) if each else ())
    sums, whole = (value.data_ptr(), 0) if each else (0, value.data_ptr())
    if compiled.likelihood(*arguments, least, totals.data_ptr(), sums, whole):
        raise FloatingPointError
    return value, totals


def likelihood_slope(
    exponentials: Tensor, totals: Tensor, classes: Tensor, factors: Tensor, g: Tensor
) -> Tensor | None:
    """Return the gradient by the scores, where ``g`` is that by what ``likelihood`` answered."""
    scores = _scores(exponentials, classes, factors)
    if scores is None or not (_is_memory(g) and _is_memory(totals)) or g.dtype != totals.dtype:
        return None
    compiled, arguments = scores
    g, slope = g.contiguous(), torch.empty_like(exponentials)
    where = totals.data_ptr(), int(g.dim() > 0), g.data_ptr(), slope.data_ptr()
    if compiled.slope(*arguments, *where):
        raise IndexError("a class of the loss was changed before its gradient was taken.")
    return slope


def beta(
    gamma: Tensor, uniform: Tensor, first: float, second: float, dtype: torch.dtype
) -> Tensor | None:
    """Return Beta variables, ``(count,)``; None for what is not ours to take.

    Args:
        gamma: ``(2, count)`` float64, just drawn from ``Gamma(a + 1)`` and ``Gamma(b + 1)``.
        uniform: ``(2, count)`` float64, just drawn from 0 to 1.
        first: ``1 / a``.
        second: ``1 / b``.
        dtype: of the answer, float32 or float64.
    """
    compiled, wide = _compiled(), _WIDE.get(dtype)
    if compiled is None or wide is None or is_recorded() or _are_functorch_transforms_active():
        return None
    if not (type(gamma) is type(uniform) is Tensor and gamma.is_cpu and uniform.is_cpu):
        return None
    count = gamma.size(1)
    out = gamma.new_empty(count, dtype=dtype)
    drawn, where = (gamma.data_ptr(), uniform.data_ptr()), out.data_ptr()
    if count and not (all(drawn) and where):  # as where operators are made functional
        return None
    compiled.beta(*drawn, first, second, count, wide, where)
    return out


def _scores(
    exponentials: Tensor, classes: Tensor, factors: Tensor
) -> tuple[_Compiled, tuple[int, ...]] | None:
    """Return the loop and what it is to know of scores, classes and factors; or None."""
    compiled, tensors = _compiled(), (exponentials, classes, factors)
    if compiled is None or is_recorded() or not all(map(_is_memory, tensors)):
        return None
    fits = exponentials.dim() == 2 and classes.dim() == 2 and factors.shape == classes.shape
    fits = fits and len(classes) == len(exponentials) and classes.dtype == torch.int64
    fits = fits and exponentials.dtype == factors.dtype in (torch.float32, torch.float64)
    if not fits or not all(one.is_contiguous() for one in tensors):
        return None
    wide = exponentials.dtype == torch.float64
    addresses = [one.data_ptr() for one in tensors]
    return compiled, (
        compiled.parallel_for,
        int(wide),
        *addresses,
        *exponentials.shape,
        classes.shape[1],
    )


def _layout(
    x: Tensor, partner: Tensor, lam: Tensor, out: Tensor, other: Tensor | None = None
) -> tuple[int, int, list[tuple[int, int]]] | None:
    """Return the kind of types, a row's length, and where each tensor's rows begin and how far
    apart they are; or None for what is not ours to take, or nobody's.

    An address is trusted in C, so here is the place to look at all that it stands for.
    """
    kind, shape = _KINDS.get((x.dtype, out.dtype)), x.shape
    tensors = (x, out) if other is None else (x, out, other)
    apart = [one for one in tensors if one is not x]
    if kind is None or is_recorded() or not all(map(_is_memory, (x, partner, lam, *apart))):
        return None
    rows = shape[0]
    fits = partner.dtype == torch.int64 and partner.shape == lam.shape == (rows,)
    for one in apart:
        fits = fits and one.shape[1:] == shape[1:] and (one is other or one.shape[0] == rows)
        fits = fits and (one is out or one.dtype == x.dtype) and one.shape[0] <= _MOST
    if not fits or x.numel() == 0 or rows > _MOST:
        return None
    if x.is_contiguous() and all(one.is_contiguous() for one in apart):
        columns = x.numel() // rows
        return kind, columns, [(one.data_ptr(), columns) for one in tensors]
    views = blocked.as_rows(*tensors)
    if views is None:
        return None
    return kind, views[0].shape[1], [(one.data_ptr(), one.stride(0)) for one in views]


def _is_memory(one: Tensor) -> bool:
    """Say whether the values of a tensor are what lies at its address."""
    if type(one) is not Tensor and type(one) is not torch.nn.Parameter:
        return False
    try:
        return one.is_cpu and not one.is_neg() and one.data_ptr() != 0
    except RuntimeError:  # it stands for others, as in a vmap or in batched gradients
        return False


def is_recorded() -> bool:
    """Say whether somebody records the operators that run, who would miss a loop in C."""
    if _len_torch_dispatch_stack() > 0 or _is_tracing():
        return True
    # Who records before the dispatch is in no list of modes but that of functions.
    recorded: bool = _len_torch_function_stack() > 0 and _dispatch_tls_is_dispatch_key_included(
        DispatchKey.PreDispatch
    )
    return recorded


def _wide(lam: Tensor, x: Tensor) -> Tensor:
    """Return shares in the type that the loop reads them in."""
    wide = wide_type(x.dtype)
    return lam if lam.dtype == wide else lam.to(wide)


def _fault(status: int, rows: int) -> Exception:
    if status == 1:
        return MemoryError("mixing found no memory for the order of its rows.")
    return IndexError(f"mix needs partners that are rows of the batch, which has {rows} rows.")

"""Kernels: the arithmetic of mixing on each kind of device, behind two functions.

Both write into an existing tensor. ``lam`` is float64 for float64 input, and float32 otherwise;
results are rounded once to the type of ``out``. A row with ``lam`` 1 is copied bit for bit,
whatever its partner holds. The caller checks shapes and types.

The modules of this package have the same two functions for ``(batch, n)`` tensors with contiguous
rows.
"""

import functools
import importlib.util
import warnings
from types import ModuleType

import torch
from torch import Tensor

from vicinal.mixing.kernels import native, portable

SMALL = 64 * 1024
"""Bytes of a batch below which calling the C loop takes longer than it saves."""


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Write ``lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]`` into ``out[i]``.

    ``out`` and ``other`` may be ``x``; otherwise ``out`` must not share memory with them.
    """
    _run("mix", (out, x, other), partner, lam)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed linear map, which is the gradient of ``mix`` with respect to ``x``.

    Here ``other`` is ``x``. ``out`` and ``g`` share no memory.
    """
    _run("transposed", (out, g), partner, lam)


def kernel_for(device: torch.device) -> ModuleType:
    """Return the module that mixes large batches on a device.

    Example:
        >>> kernel_for(torch.device("meta")).__name__
        'vicinal.mixing.kernels.portable'
    """
    if device.type == "cpu" and native.is_available():
        return native
    return (_triton_kernels() if device.type == "cuda" else None) or portable


@functools.cache
def _triton_kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        from triton.runtime import driver

        from vicinal.mixing.kernels import triton_kernels

        driver.active.get_current_target()  # the first call compiles a C file
    except Exception as error:
        warnings.warn(
            "Batches on the GPU are mixed with PyTorch operators, which is slower, since Triton "
            f"cannot be used here: {error} It needs a GPU that it supports, a C compiler and the "
            "header files of Python.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return triton_kernels


def _run(name: str, tensors: tuple[Tensor, ...], partner: Tensor, lam: Tensor) -> None:
    """Run a function of the kernel for these tensors, of which the first one is written."""
    out = tensors[0]
    if out.numel() == 0:
        return
    rows = _as_rows(tensors)
    if rows is None:
        copies = [one.contiguous() for one in tensors[1:]]
        dense = torch.empty_like(out, memory_format=torch.contiguous_format)
        _run(name, (dense, *copies), partner, lam)
        out.copy_(dense)
        return
    kernel = kernel_for(out.device)
    if kernel is native and not (out.nbytes >= SMALL and native.takes(rows, partner, lam)):
        kernel = portable
    getattr(kernel, name)(*rows, partner, lam)


def _as_rows(tensors: tuple[Tensor, ...]) -> list[Tensor] | None:
    """Return ``(batch, n)`` views with contiguous rows and the same order of columns.

    The dimensions of a row are taken in the order that they have in memory, so channels_last is
    viewed too. Return None if there are no such views.
    """
    if all(one.is_contiguous() for one in tensors):
        return [one.view(len(one), -1) for one in tensors]
    order = sorted(range(1, tensors[0].dim()), key=tensors[0].stride, reverse=True)
    ordered = [one.permute(0, *order) for one in tensors]
    if not all(one[0].is_contiguous() for one in ordered):
        return None
    return [one.reshape(len(one), -1) for one in ordered]

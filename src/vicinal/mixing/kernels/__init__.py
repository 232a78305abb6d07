"""Kernels: the arithmetic of mixing on each kind of device, behind two functions.

Both write into an existing tensor. ``lam`` is float64 for float64 input, and float32 otherwise;
results are rounded once to the type of ``out``. A row with ``lam`` 1 is copied bit for bit,
whatever its partner holds. The caller checks shapes and types.
"""

import functools
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from vicinal.mixing.kernels import blocked, native, reference

SMALL = 64 * 1024
"""Bytes of a batch below which a call into C isn't worth its checks."""


def mix(out: Tensor, x: Tensor, other: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Write ``lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]`` into ``out[i]``.

    ``out`` and ``other`` may be ``x`` itself; otherwise they share no memory with it.
    """
    if not (_suits_native(x) and native.mix(out, x, other, partner, lam)):
        _portable_kernel(x.device).mix(out, x, other, partner, lam)


def transposed(out: Tensor, g: Tensor, partner: Tensor, lam: Tensor) -> None:
    """Apply the transposed linear map, which is the gradient of ``mix`` with respect to ``x``.

    Here ``other`` is ``x``. ``out`` and ``g`` share no memory.
    """
    if not (_suits_native(g) and native.transposed(out, g, partner, lam)):
        _portable_kernel(g.device).transposed(out, g, partner, lam)


def kernel_for(device: torch.device) -> ModuleType:
    """Return the module that mixes large batches on a device.

    Example:
        >>> kernel_for(torch.device("meta")).__name__
        'vicinal.mixing.kernels.reference'
    """
    on_cpu = device.type == "cpu" and native.is_available()
    return native if on_cpu else _portable_kernel(device)


def _suits_native(x: Tensor) -> bool:
    return x.is_cpu and x.numel() * x.element_size() >= SMALL


@functools.cache
def _portable_kernel(device: torch.device) -> ModuleType:
    if device.type == "cpu":
        return blocked
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from vicinal.mixing.kernels import fused

        return fused
    return reference

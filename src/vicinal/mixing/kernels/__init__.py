"""Kernels: the arithmetic of mixing, once for each kind of machine, behind one interface.

Every kernel module has two functions that write into a tensor which exists:

* ``mix(out, x, other, partner, lam)``:
  ``out[i] = lam[i] * x[i] + (1 - lam[i]) * other[partner[i]]``. ``out`` may be ``x`` itself, and
  ``other`` may be ``x`` itself; else they share no memory.
* ``transposed(out, g, partner, lam)``: the transposed linear map, which is the gradient of ``mix``
  by ``x`` where ``other`` is ``x``. ``out`` and ``g`` share no memory.

``lam`` is float64 where ``x`` is, and float32 otherwise; results are rounded once to the type of
``out``. A row with ``lam`` 1 comes out bit for bit as it went in, whatever its partner holds.
Shapes and types are checked before; values are trusted.
"""

import functools
import importlib.util
from types import ModuleType

import torch

from vicinal.mixing.kernels import blocked, native, reference


@functools.cache
def kernel_for(device: torch.device) -> ModuleType:
    """Return the kernel module for tensors on ``device``.

    Example:
        >>> kernel_for(torch.device("meta")).__name__
        'vicinal.mixing.kernels.reference'
    """
    if device.type == "cpu":
        return native if native.is_there() else blocked
    if device.type == "cuda" and importlib.util.find_spec("triton") is not None:
        from vicinal.mixing.kernels import fused

        return fused
    return reference

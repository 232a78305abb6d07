"""Memory for results: large ones on a CPU in huge pages, those of gradients used again.

The system clears each page that it hands out, which takes longer than the blend that fills it:
128x64x32x32 float32 took 4.4 ms to mix into new pages and 2.5 ms into pages that were there.
"""

import contextlib
import mmap
import weakref

import numpy as np
import torch
from torch import Tensor

_HUGE = 4 * 1024 * 1024
"""Bytes from which on huge pages are asked for, and gradients use memory again."""

_CAN_LEND = hasattr(mmap, "MADV_HUGEPAGE") and hasattr(mmap, "MADV_FREE")  # Linux

_spare: list[mmap.mmap] = []
"""The memory of the last large gradient that was freed, if there was one."""


def new_like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor like ``x``. Freed, its memory goes back to the system."""
    size = x.numel() * dtype.itemsize
    if x.device.type != "cpu" or size < _HUGE:
        return torch.empty_like(x, dtype=dtype)
    return _shaped(np.empty(size, np.uint8), x, dtype)  # NumPy asks for huge pages


def gradient_like(g: Tensor) -> Tensor:
    """Return an empty tensor like ``g``, in the memory of the last gradient if it is free and fits.

    A gradient on its way through a layer is freed as soon as the layer below has used it, and the
    next step wants the same again. So its memory is kept, one gradient's and no more, and the
    system is told that it may have it back whenever it runs short. A gradient that somebody holds
    keeps its memory for itself, also through views.
    """
    size = g.numel() * g.dtype.itemsize
    if not _CAN_LEND or g.device.type != "cpu" or size < _HUGE:
        return new_like(g, g.dtype)
    block = _spare_of(size) or _block_of(size)
    if block is None:
        return torch.empty_like(g)  # which says in PyTorch's words that there is no memory
    lent = np.frombuffer(block, np.uint8)
    weakref.finalize(lent, _take_back, block).atexit = False
    return _shaped(lent, g, g.dtype)


def _spare_of(size: int) -> mmap.mmap | None:
    """Return what is kept, if it has this size, and keep nothing."""
    try:
        block = _spare.pop()
    except IndexError:
        return None
    return block if len(block) == size else None


def _block_of(size: int) -> mmap.mmap | None:
    """Return new memory, or None if there is none."""
    try:
        block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a system without huge pages
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _take_back(block: mmap.mmap) -> None:
    with contextlib.suppress(OSError):  # memory that the system cannot have back is not kept
        block.madvise(mmap.MADV_FREE)
        _spare[:] = [block]


def _shaped(memory: np.ndarray, x: Tensor, dtype: torch.dtype) -> Tensor:
    stride = torch.empty_like(x, dtype=dtype, device="meta").stride()
    storage = torch.from_numpy(memory).untyped_storage()
    # A view of the bytes could not be changed in place by what asks for a gradient.
    return torch.empty(0, dtype=dtype, device=x.device).set_(storage, 0, x.shape, stride)

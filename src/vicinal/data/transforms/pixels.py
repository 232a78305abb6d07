"""Floating-point arithmetic on batches of images, in blocks that fit in the cache."""

from collections.abc import Callable

import torch
from torch import Tensor

ON_CPU = 2**16
"""Pixels of a block on the CPU, which fit in its cache."""

ELSEWHERE = 2**22
"""Pixels of a block on other devices, where launching an operation takes longer."""


def mapped(
    x: Tensor,
    size: tuple[int, int],
    change: Callable[[Tensor, slice, Tensor], Tensor],
    *,
    planes: int = 0,
) -> Tensor:
    """Change images in floating point, block by block.

    All blocks use the same memory, since allocating takes as long as the arithmetic.

    Args:
        x: ``(batch, channels, height, width)`` uint8 or floating point. Not modified.
        size: (height, width) of what ``change`` returns.
        change: called with a block of images that it may modify, float32 (float64 if ``x`` is); its
            rows; and scratch memory ``(planes, rows, height, width)``.
        planes: scratch numbers per pixel that ``change`` needs.

    Returns:
        ``(batch, channels, *size)``, contiguous, of the type of ``x``; for uint8 rounded to the
        nearest, half to even, which requires that ``change`` returns 0 to 255.

    Example:
        >>> x = torch.full((2, 1, 1, 1), 100, dtype=torch.uint8)
        >>> mapped(x, (1, 1), lambda block, rows, planes: block * 1.007).flatten().tolist()
        [101, 101]
    """
    batch, channels, height, width = x.shape
    pixels = max(height * width, size[0] * size[1])
    step = max(1, min(batch, (ON_CPU if x.device.type == "cpu" else ELSEWHERE) // pixels))
    working = torch.float64 if x.dtype == torch.float64 else torch.float32
    blocks = x.new_empty(step, channels, height, width, dtype=working)
    memory = blocks.new_empty(planes, step, height, width)
    out = x.new_empty(batch, channels, *size)
    # Converted through int16, since PyTorch vectorizes both steps on the CPU, but not the direct
    # conversion to uint8.
    whole = (
        x.new_empty(step, channels, *size, dtype=torch.int16) if x.dtype == torch.uint8 else None
    )
    for start in range(0, batch, step):
        rows = slice(start, min(start + step, batch))
        count = rows.stop - start
        new = change(blocks[:count].copy_(x[rows]), rows, memory[:, :count])
        out[rows].copy_(new if whole is None else whole[:count].copy_(new.round_()))
    return out

"""Arithmetic on batches of images, done in floating point in blocks that stay in cache."""

from collections.abc import Callable

import torch
from torch import Tensor

ON_CPU = 2**16
"""Pixels that are worked on together on the CPU: what its cache holds."""

ELSEWHERE = 2**22
"""The same for other devices, where an operation takes longer to start."""


def mapped(
    x: Tensor,
    size: tuple[int, int],
    change: Callable[[Tensor, slice, Tensor], Tensor],
    *,
    planes: int = 0,
) -> Tensor:
    """Return images that were changed in floating point, block by block.

    All blocks use the same memory, since new memory takes as long to get as arithmetic takes.

    Args:
        x: ``(batch, channels, height, width)`` uint8 or floating point. Not modified.
        size: (height, width) of what ``change`` returns.
        change: is given a block of images to do anything with, float32 (float64 where ``x`` is);
            the rows that it came from; and ``(planes, rows, height, width)`` to write on.
        planes: numbers for each pixel that ``change`` needs to write on.

    Returns:
        ``(batch, channels, *size)``, contiguous, of the type of ``x``; for uint8 rounded to the
        nearest, half to even. ``change`` has to keep to 0..255 there.

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
    # From float to uint8 by way of int16, since PyTorch's CPU takes both steps with vector
    # instructions, but the direct one number by number.
    whole = (
        x.new_empty(step, channels, *size, dtype=torch.int16) if x.dtype == torch.uint8 else None
    )
    for start in range(0, batch, step):
        rows = slice(start, min(start + step, batch))
        count = rows.stop - start
        new = change(blocks[:count].copy_(x[rows]), rows, memory[:, :count])
        out[rows].copy_(new if whole is None else whole[:count].copy_(new.round_()))
    return out

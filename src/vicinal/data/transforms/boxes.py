"""Boxes in images: drawing, cutting out and resizing them."""

import math

import numpy as np
import torch
from torch import Tensor

from vicinal.data.transforms.pixels import mapped

ATTEMPTS = 10
"""Boxes that are drawn for an image before its middle is used, as in torchvision."""

_Pair = tuple[int, int]

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def windows(x: Tensor, corners: Tensor, *, size: tuple[int, int], padding: int = 0) -> Tensor:
    """Pad images with zeros, and cut a window out of each.

    Args:
        x: ``(batch, channels, height, width)``. Not modified.
        corners: ``(batch, 2)`` top and left in the padded image, on the CPU.
        size: (height, width) of the windows.
        padding: pixels of zeros on each of the four sides.

    Returns:
        ``(batch, channels, *size)``, contiguous.

    Raises:
        ValueError: if a window does not lie in the padded image.

    Example:
        >>> x = torch.arange(1, 10).view(1, 1, 3, 3)
        >>> windows(x, torch.tensor([[2, 1]]), size=(2, 2), padding=1).tolist()
        [[[[4, 5], [7, 8]]]]
    """
    batch, channels, height, width = x.shape
    places = height + 2 * padding - size[0] + 1, width + 2 * padding - size[1] + 1
    corners = corners.to(torch.int64)
    if bool((corners < 0).any()) or bool((corners >= torch.tensor(places)).any()):
        raise ValueError(
            f"expected windows of {size} pixels inside images of {height} x {width} padded by "
            f"{padding}, got one that leaves its image; draw for images of this size."
        )
    padded = x.new_zeros(batch, channels, height + 2 * padding, width + 2 * padding)
    padded[..., padding : padding + height, padding : padding + width] = x
    cut = _cut_by_numpy if x.device.type == "cpu" else _cut_by_torch
    return cut(padded, corners, places, size)


def _cut_by_torch(padded: Tensor, corners: Tensor, places: _Pair, size: _Pair) -> Tensor:
    shape, strides = _all_windows(padded, places, size)
    top, left = (one.to(padded.device, non_blocking=True) for one in corners.unbind(1))
    rows = torch.arange(len(padded), device=padded.device)
    return padded.as_strided(shape, strides)[rows, top, left]


def _cut_by_numpy(padded: Tensor, corners: Tensor, places: _Pair, size: _Pair) -> Tensor:
    # NumPy copies windows row by row, five times as fast as PyTorch, which copies pixels.
    shape, strides = _all_windows(padded, places, size)
    memory = padded.view(_WORDS[padded.element_size()]).numpy()
    strides_in_bytes = [memory.itemsize * one for one in strides]
    # as_strided makes a reference cycle, which keeps the padded images until garbage collection.
    windows = np.ndarray(shape, memory.dtype, memory, strides=strides_in_bytes)
    top, left = corners.numpy().T
    cut = np.ascontiguousarray(windows[np.arange(len(padded)), top, left])
    return torch.from_numpy(cut).view(padded.dtype)


def _all_windows(padded: Tensor, places: _Pair, size: _Pair) -> tuple[list[int], list[int]]:
    """Return shape and strides of ``(batch, *places, channels, *size)``: overlapping windows."""
    batch, channels, down, right = padded.stride()
    shape = [padded.shape[0], *places, padded.shape[1], *size]
    return shape, [batch, down, right, channels, down, right]


def draw_boxes(
    size: int,
    shape: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Draw a box in each of ``size`` images, as documented at ``RandomResizedCrop``.

    Args:
        size: number of images.
        shape: their (height, width).
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height.
        generator: on the CPU.

    Returns:
        ``(size, 4)`` float64: top, left, height and width in whole pixels.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draw_boxes(1, (8, 8), scale=(1, 1), ratio=(1, 1), generator=generator).tolist()
        [[0.0, 0.0, 8.0, 8.0]]
    """
    sides = torch.tensor(shape, dtype=torch.float64)
    chance = torch.rand(size, 2 * ATTEMPTS + 2, dtype=torch.float64, generator=generator)
    area = sides.prod() * torch.lerp(*_ends(*scale), chance[:, :ATTEMPTS])
    log_ratio = torch.lerp(*_ends(*map(math.log, ratio)), chance[:, ATTEMPTS:-2])
    half = (log_ratio / 2).exp()
    boxes = torch.stack([area.sqrt() / half, area.sqrt() * half], dim=2).round_()
    fits = ((boxes >= 1) & (boxes <= sides)).all(2)
    first = fits.int().argmax(1)
    box = boxes[torch.arange(size), first]
    # If no drawn box fits: the largest box in the middle with the nearest ratio.
    height, width = shape
    nearest = min(max(width / height, ratio[0]), ratio[1])
    middle = torch.tensor([min(height, width / nearest), min(width, height * nearest)])
    middle = middle.to(torch.float64).round().clamp_min(1)
    fitted = fits.any(1, keepdim=True)
    box = torch.where(fitted, box, middle)
    corner = (chance[:, -2:] * (sides - box + 1)).floor_()
    corner = torch.where(fitted, corner, ((sides - middle) / 2).floor())
    return torch.cat([corner, box], dim=1)


def resized(x: Tensor, boxes: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Resize a box of each image by bilinear interpolation, without smoothing.

    Equals ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` of each box;
    pixels outside of it have no influence.

    Args:
        x: ``(batch, channels, height, width)`` uint8 or floating point. Not modified.
        boxes: ``(batch, 4)`` float64: top, left, height and width in whole pixels, on the CPU.
        size: (height, width) of the result.

    Returns:
        ``(batch, channels, *size)``, contiguous, of the type of ``x``.

    Raises:
        ValueError: if a box does not lie in its image.

    Example:
        >>> x = torch.tensor([0.0, 8.0, 90.0]).view(1, 1, 1, 3)
        >>> box = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
        >>> resized(x, box, size=(1, 4)).flatten().tolist()
        [0.0, 2.0, 6.0, 8.0]
    """
    sides = x.shape[2:]
    corner, box = boxes[:, :2], boxes[:, 2:]
    limit = torch.tensor(sides)
    if not bool(((corner >= 0) & (box >= 1) & (corner + box <= limit)).all()):
        raise ValueError(
            f"expected boxes inside images of {sides[0]} x {sides[1]}, got one that leaves its "
            "image; draw for images of this size."
        )
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    down, right = (
        _places(corner[:, i], box[:, i], size[i], sides[i]).to(x.device, dtype, non_blocking=True)
        for i in (0, 1)
    )

    def change(block: Tensor, rows: slice, _planes: Tensor) -> Tensor:
        grid = block.new_empty(len(block), *size, 2)
        grid[..., 0] = right[rows, None, :]
        grid[..., 1] = down[rows, :, None]
        return torch.nn.functional.grid_sample(
            block, grid, mode="bilinear", padding_mode="border", align_corners=False
        )

    return mapped(x, size, change)


def _places(start: Tensor, length: Tensor, count: int, side: int) -> Tensor:
    """Return ``(batch, count)`` positions along a side, from -1 to 1 as for grid_sample."""
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) * (length[:, None] / count) - 0.5
    within = torch.minimum(middles.clamp_min_(0), length[:, None] - 1)
    return (2 * (start[:, None] + within) + 1) / side - 1


def _ends(low: float, high: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)

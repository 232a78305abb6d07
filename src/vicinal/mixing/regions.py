"""Regions of images and signals: drawing them, and showing the partner in them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.mixing.randomness import CPU


def show_region(
    x: Tensor, other: Tensor | None, partner: Tensor, region: Tensor, *, shrunk: bool
) -> Tensor:
    """Return ``x`` with each row's partner shown where ``region`` is True.

    Args:
        x: ``(batch, ..., *sizes)`` of any type, where ``sizes`` are ``(height, width)`` for
            images. Not modified.
        other: ``(rows, ..., *sizes)``, where the partners come from: ``x`` if None.
        partner: ``(batch,)`` int64.
        region: ``(batch or 1, *sizes)`` bool.
        shrunk: whether the whole partner, made smaller, fills the region, which then is a box.

    Raises:
        TypeError: if ``x`` is complex and the partner has to be made smaller.
        ValueError: if ``x`` is not of the size of the region, or ``other`` does not fit.
    """
    if not has_region_size(region, x):
        sizes = tuple(region.shape[1:])
        raise ValueError(
            f"this plan was drawn for image_size={sizes}, got x of shape {tuple(x.shape)}; draw it "
            f"with image_size=x.shape[-{len(sizes)}:], and mix features only after layers whose "
            "output has that size."
        )
    if shrunk and x.dtype.is_complex:
        raise TypeError(
            f"ResizeMix interpolates real values, got {x.dtype}; mix x.real and x.imag, or "
            "torch.view_as_real(x) with its last dimension moved in front of the height."
        )
    other = x if other is None else other
    if other.dtype != x.dtype or other.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"mix needs x and other of one type and shape after the first dimension, got "
            f"{x.dtype} {tuple(x.shape)} and {other.dtype} {tuple(other.shape)}."
        )
    shown = other.index_select(0, partner)
    if shrunk:
        smooth = x.dtype.is_floating_point or x.dtype == torch.uint8
        shown = shrunk_into(shown, region, smooth=smooth)
    where = region.reshape(len(region), *[1] * (x.dim() - region.dim()), *region.shape[1:])
    return torch.where(where, shown, x)


def has_region_size(region: Tensor, values: Tensor) -> bool:
    """Return whether the last dimensions of ``(batch, ..., *sizes)`` are those of a region.

    Example:
        >>> region = torch.zeros(1, 4, 6, dtype=torch.bool)
        >>> has_region_size(region, torch.zeros(2, 3, 4, 6))
        True
        >>> has_region_size(region, torch.zeros(2, 6, 4))
        False
    """
    return values.dim() >= region.dim() and (
        values.shape[values.dim() - region.dim() + 1 :] == region.shape[1:]
    )


def kept_share(region: Tensor) -> Tensor:
    """Return the share of the pixels that are outside a region, ``(batch or 1,)`` float32."""
    area = math.prod(region.shape[1:])
    return ((area - region.flatten(1).sum(1)).double() / area).float()


def boxes(starts: Tensor, stops: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``(count, *sizes)`` bool masks of segments, rectangles, boxes and so on.

    Args:
        starts: ``(dimensions, count)`` int64, the first index that is True.
        stops: ``(dimensions, count)`` int64, the index after the last one. What lies outside of
            ``sizes`` is cut off.
        sizes: one for each dimension, such as ``(height, width)``.

    Example:
        >>> starts, stops = torch.tensor([[-4], [1]]), torch.tensor([[1], [3]])
        >>> boxes(starts, stops, (2, 3)).int().tolist()
        [[[0, 1, 1], [0, 0, 0]]]
    """
    mask = torch.ones((), dtype=torch.bool, device=CPU)
    for start, stop, size in zip(starts, stops, sizes, strict=True):
        index = torch.arange(size, device=CPU)
        mask = mask[..., None] & ((index >= start[:, None]) & (index < stop[:, None])).reshape(
            len(start), *[1] * max(mask.dim() - 1, 0), size
        )
    return mask


def low_frequency_masks(
    keep: Tensor, *, height: int, width: int, decay: float, generator: torch.Generator | None
) -> Tensor:
    """Return ``(count, height, width)`` bool masks of low frequency, after FMix.

    White noise, filtered so that its amplitude falls with the frequency to the power of ``decay``,
    equally in all directions; its largest values, a share of ``1 - keep`` rounded to whole pixels,
    are True. Harris et al., "FMix: Enhancing Mixed
    Sample Data Augmentation" (https://arxiv.org/abs/2002.12047), section 4.1.

    Args:
        keep: ``(count,)``, the share of the pixels that are False.
        height: of the masks.
        width: of the masks.
        decay: from 0, white noise, upwards: the larger, the fewer and rounder the regions.
        generator: where the noise comes from, on the CPU.
    """
    count, area = len(keep), height * width
    if count == 0:
        return torch.zeros(0, height, width, dtype=torch.bool, device=CPU)
    down = torch.fft.fftfreq(height, dtype=torch.float32, device=CPU)[:, None]
    across = torch.fft.rfftfreq(width, dtype=torch.float32, device=CPU)
    frequency = torch.hypot(down, across).clamp_min(1 / max(height, width))
    # Noise is drawn in space rather than as the half spectrum that rfft2 returns: in that half,
    # kx = 0 and the highest kx stand for themselves and all others for two waves each.
    noise = torch.randn(count, height, width, dtype=torch.float32, generator=generator, device=CPU)
    spectrum = torch.fft.rfft2(noise) / frequency**decay
    gray = torch.fft.irfft2(spectrum, s=(height, width)).flatten(1)
    rank = gray.argsort(dim=1, descending=True).argsort(dim=1)
    shown = ((1 - keep.double()) * area).round()
    mask: Tensor = rank < shown[:, None]
    return mask.reshape(count, height, width)


def shrunk_into(images: Tensor, region: Tensor, *, smooth: bool) -> Tensor:
    """Shrink each image into the box of its region; values outside of the box are arbitrary.

    Args:
        images: ``(batch, ..., height, width)`` of any type.
        region: ``(batch or 1, height, width)`` bool, boxes.
        smooth: interpolate bilinearly, as for images, instead of taking the nearest value, as for
            classes.
    """
    height, width = region.shape[-2:]
    top, rows = _first_and_count(region.any(2))
    left, columns = _first_and_count(region.any(1))
    exact = images.dtype == torch.float64 or not smooth
    wide = torch.float64 if exact else torch.float32
    y, x = (torch.arange(n, dtype=wide, device=region.device) for n in (height, width))
    y = (y - top[:, None] + 0.5) / rows[:, None]
    x = (x - left[:, None] + 0.5) / columns[:, None]
    grid = torch.stack(
        torch.broadcast_tensors((2 * x - 1)[:, None, :], (2 * y - 1)[:, :, None]), -1
    ).expand(len(images), -1, -1, -1)
    flat = images.to(wide).reshape(len(images), math.prod(images.shape[1:-2]), height, width)
    drawn = F.grid_sample(
        flat,
        grid,
        mode="bilinear" if smooth else "nearest",
        padding_mode="border",
        align_corners=False,
    )
    drawn = drawn.reshape(images.shape)
    return (drawn if images.dtype.is_floating_point else drawn.round()).to(images.dtype)


def _first_and_count(line: Tensor) -> tuple[Tensor, Tensor]:
    return line.int().argmax(1), line.sum(1).clamp_min(1)

"""Regions of images, signals and volumes: how they are drawn, and how the partner shows in them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.mixing.randomness import CPU, named


def show_region(
    x: Tensor, other: Tensor | None, partner: Tensor, region: Tensor, *, shrunk: bool
) -> Tensor:
    """Return ``x`` with each row's partner shown where ``region`` is True; see ``Plan.mix``."""
    if not has_region_size(region, x):
        sizes = tuple(region.shape[1:])
        own = f"x.shape[-{len(sizes)}:]" if len(sizes) < x.dim() else "x.shape[2:]"
        raise ValueError(
            f"x: expected a shape that ends with the image_size of the plan, {sizes}, after the "
            f"batch, got {tuple(x.shape)}. Draw the plan with image_size={own}, and mix features "
            "only after layers whose output has that size. For other inputs of the same examples, "
            "such as a table, use vicinal.mix with the partner and lam of the plan."
        )
    if region.dim() == x.dim() == 4 and 1 < x.shape[1] <= 4:
        raise ValueError(
            f"x: expected image_size without channels, got {tuple(region.shape[1:])} for "
            f"{tuple(x.shape)}, so that a box would take some of the channels only. For images, "
            "draw the plan with image_size=x.shape[2:]; for volumes without channels, pass "
            "x[:, None]."
        )
    if shrunk and x.dtype.is_complex:
        raise TypeError(
            f"x: expected real values, which ResizeMix can interpolate, got {x.dtype}. Mix x.real "
            "and x.imag separately."
        )
    shown = (x if other is None else other).index_select(0, partner)
    if shrunk:
        smooth = x.dtype.is_floating_point or x.dtype == torch.uint8
        shown = shrunk_into(shown, region, smooth=smooth)
    where = region.reshape(len(region), *[1] * (x.dim() - region.dim()), *region.shape[1:])
    return torch.where(~where, x, shown)  # the first one decides about the memory format


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


def is_mask(y: Tensor, region: Tensor) -> bool:
    """Return whether targets have a value for each pixel of the region.

    Floating-point and boolean targets with two dimensions are never masks: they are taken as
    ``(batch, classes)``, even if the second dimension has the size of the region.

    Raises:
        ValueError: if they are a mask of a different size.
    """
    is_soft = y.dtype.is_floating_point or y.dtype == torch.bool
    if y.dim() < 2 or (y.dim() == 2 and (region.dim() > 2 or is_soft)):
        return False
    if not has_region_size(region, y):
        raise ValueError(
            f"y: expected a shape that ends with the image_size of the plan, "
            f"{tuple(region.shape[1:])}, got {tuple(y.shape)}. Resize masks to the size of the "
            "inputs. Pass targets of whole examples as (batch,) or (batch, classes)."
        )
    return True


def check_region(
    region: Tensor, size: int, shares: Tensor | None, *, shrunk: bool, columns: bool
) -> None:
    """Raise unless this can be the region of a plan for ``size`` examples."""
    if shares is not None:
        raise ValueError("Plan: expected a region or shares of several partners, got both.")
    if region.dtype != torch.bool or region.dim() < 2 or len(region) not in (1, size):
        raise ValueError(
            f"region: expected bool (batch, height, width), or other sizes after the batch, with "
            f"batch 1 or {size}, got {region.dtype} of shape {tuple(region.shape)}."
        )
    if shrunk and region.dim() != 3:
        raise ValueError(
            f"region: expected (batch, height, width), got {tuple(region.shape)}. Partners can be "
            "shrunk (ResizeMix) in images only."
        )
    if columns and region.dim() != 2:
        raise ValueError(
            f"region: expected (batch, features), since it is columns of a table, got "
            f"{tuple(region.shape)}."
        )


def kept_share(region: Tensor) -> Tensor:
    """Return the share of the pixels that are outside a region, ``(batch or 1,)`` float32."""
    area = math.prod(region.shape[1:])
    return ((area - region.flatten(1).sum(1)).double() / area).float()


def boxes(starts: Tensor, stops: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return ``(count, *sizes)`` bool masks that are True in a segment, rectangle or box.

    ``starts`` and ``stops``, ``(dimensions, count)`` int64, are the first index of a box and the
    index after its last one. Boxes are cut off at the borders.

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
    """Return ``(count, height, width)`` bool masks of low frequency, as in FMix.

    White noise is filtered: the amplitude at each frequency is divided by the frequency to the
    power of ``decay``, equally in all directions. A mask is True at the largest values of the
    result. ``keep``, ``(count,)``, is the share of the pixels that an example keeps, where the mask
    is False, rounded to whole pixels. Harris et al., "FMix: Enhancing Mixed Sample Data
    Augmentation" (https://arxiv.org/abs/2002.12047), section 4.1.
    """
    count, area = len(keep), height * width
    if count == 0:
        return torch.zeros(0, height, width, dtype=torch.bool, device=CPU)
    down = torch.fft.fftfreq(height, dtype=torch.float32, device=CPU)[:, None]
    across = torch.fft.rfftfreq(width, dtype=torch.float32, device=CPU)
    frequency = torch.hypot(down, across).clamp_min(1 / max(height, width))
    # The noise is drawn in space, not as the half spectrum that rfft2 returns, in which some values
    # stand for one wave and the others for two.
    noise = torch.randn(count, height, width, dtype=torch.float32, device=CPU, **named(generator))
    # The factors are at most 1: a large power of the frequency itself would round to zero.
    spectrum = torch.fft.rfft2(noise) * (frequency.min() / frequency) ** decay
    gray = torch.fft.irfft2(spectrum, s=(height, width)).flatten(1)
    rank = gray.argsort(dim=1, descending=True).argsort(dim=1)
    shown = ((1 - keep.double()) * area).round()
    mask: Tensor = rank < shown[:, None]
    return mask.reshape(count, height, width)


def shrunk_into(images: Tensor, region: Tensor, *, smooth: bool) -> Tensor:
    """Shrink each image into the box of its region; values outside of the box are arbitrary.

    If ``smooth``, interpolate bilinearly, as for images; otherwise take the nearest value, as for
    masks of classes.
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

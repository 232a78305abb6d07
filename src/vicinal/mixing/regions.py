"""Regions of a picture: drawing them, and showing the partner in them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.mixing.randomness import CPU


def show_region(
    x: Tensor, other: Tensor | None, partner: Tensor, region: Tensor, *, shrunk: bool
) -> Tensor:
    """Return ``x`` with each row's partner shown where ``region`` is True.

    Args:
        x: ``(batch, ..., height, width)`` of any type. Not modified.
        other: ``(rows, ..., height, width)``, where the partners come from: ``x`` if None.
        partner: ``(batch,)`` int64.
        region: ``(batch or 1, height, width)`` bool.
        shrunk: whether the whole partner, made smaller, fills the region, which then is a box.

    Raises:
        ValueError: if ``x`` is not of the size of the region, or ``other`` does not fit.
    """
    if x.dim() < 3 or x.shape[-2:] != region.shape[-2:]:
        raise ValueError(
            f"this plan was drawn for pictures of {tuple(region.shape[-2:])}, x has shape "
            f"{tuple(x.shape)}; draw it for the size of what is mixed, image_size=x.shape[-2:], "
            "and inside a network only at places of that size."
        )
    other = x if other is None else other
    if other.dtype != x.dtype or other.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"mix needs x and other of one type and shape after the first dimension, got "
            f"{x.dtype} {tuple(x.shape)} and {other.dtype} {tuple(other.shape)}."
        )
    met = other.index_select(0, partner)
    if shrunk:
        smooth = x.dtype.is_floating_point or x.dtype == torch.uint8
        met = shrunk_into(met, region, smooth=smooth)
    where = region.reshape(len(region), *[1] * (x.dim() - 3), *region.shape[1:])
    return torch.where(where, met, x)


def kept_share(region: Tensor) -> Tensor:
    """Return the share of the pixels that are outside a region, ``(batch or 1,)`` float32."""
    area = region.shape[-2] * region.shape[-1]
    return ((area - region.flatten(1).sum(1)).double() / area).float()


def boxes(
    top: Tensor, bottom: Tensor, left: Tensor, right: Tensor, *, height: int, width: int
) -> Tensor:
    """Return ``(boxes, height, width)`` bool masks: True from top to bottom and left to right,
    the ends excluded; what lies outside the picture is cut off.

    Example:
        >>> one = torch.tensor([1])
        >>> boxes(one - 5, one, one, one + 2, height=2, width=3).int().tolist()
        [[[0, 1, 1], [0, 0, 0]]]
    """
    y, x = torch.arange(height, device=CPU), torch.arange(width, device=CPU)
    rows = (y >= top[:, None]) & (y < bottom[:, None])
    columns = (x >= left[:, None]) & (x < right[:, None])
    return rows[:, :, None] & columns[:, None, :]


def clouds(
    keep: Tensor, *, height: int, width: int, decay: float, generator: torch.Generator | None
) -> Tensor:
    """Return ``(clouds, height, width)`` bool masks of low frequency, after FMix.

    Noise whose amplitude falls with its frequency to the power of ``decay``; its largest values, a
    share of ``1 - keep`` rounded to whole pixels, are True. Harris et al., "FMix: Enhancing Mixed
    Sample Data Augmentation" (https://arxiv.org/abs/2002.12047), section 4.1.

    Args:
        keep: ``(clouds,)``, the share of the pixels that are False.
        height: of the masks.
        width: of the masks.
        decay: from 0, white noise, upwards: the larger, the fewer and rounder the clouds.
        generator: where the noise comes from, on the CPU.
    """
    count, area = len(keep), height * width
    if count == 0:
        return torch.zeros(0, height, width, dtype=torch.bool, device=CPU)
    down = torch.fft.fftfreq(height, device=CPU)[:, None]
    frequency = torch.hypot(down, torch.fft.rfftfreq(width, device=CPU))
    frequency = frequency.clamp_min(1 / max(height, width))
    noise = torch.randn(2, count, *frequency.shape, generator=generator, device=CPU)
    grey = torch.fft.irfft2(torch.complex(*noise) / frequency**decay, s=(height, width)).flatten(1)
    rank = grey.argsort(dim=1, descending=True).argsort(dim=1)
    shown = ((1 - keep.double()) * area).round()
    mask: Tensor = rank < shown[:, None]
    return mask.reshape(count, height, width)


def shrunk_into(pictures: Tensor, region: Tensor, *, smooth: bool) -> Tensor:
    """Return pictures of which each fills the box that its region is; arbitrary outside of it.

    Args:
        pictures: ``(batch, ..., height, width)`` of any type.
        region: ``(batch or 1, height, width)`` bool, boxes.
        smooth: bilinear, as pictures want it, in place of the nearest value, as classes do.
    """
    height, width = region.shape[-2:]
    top, rows = _first_and_count(region.any(2))
    left, columns = _first_and_count(region.any(1))
    y = (torch.arange(height, device=region.device) - top[:, None] + 0.5) / rows[:, None]
    x = (torch.arange(width, device=region.device) - left[:, None] + 0.5) / columns[:, None]
    grid = torch.stack(
        torch.broadcast_tensors((2 * x - 1)[:, None, :], (2 * y - 1)[:, :, None]), -1
    ).expand(len(pictures), -1, -1, -1)
    exact = pictures.dtype == torch.float64 or not smooth
    wide = torch.float64 if exact else torch.float32
    flat = pictures.to(wide).reshape(len(pictures), math.prod(pictures.shape[1:-2]), height, width)
    drawn = F.grid_sample(
        flat,
        grid.to(wide),
        mode="bilinear" if smooth else "nearest",
        padding_mode="border",
        align_corners=False,
    )
    drawn = drawn.reshape(pictures.shape)
    return (drawn if pictures.dtype.is_floating_point else drawn.round()).to(pictures.dtype)


def _first_and_count(line: Tensor) -> tuple[Tensor, Tensor]:
    return line.int().argmax(1), line.sum(1).clamp_min(1)

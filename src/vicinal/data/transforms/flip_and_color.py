"""Augmentation of batches of images: all chance is drawn first, then applied on any device."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from vicinal.data.transforms.checks import check_batch, check_image, check_number
from vicinal.data.transforms.color import shift_hls
from vicinal.data.transforms.crops import RandomCrop, RandomResizedCrop
from vicinal.data.transforms.pixels import mapped
from vicinal.errors import UserError


class Transform(Protocol):
    """Anything that changes the images of a batch, each by a chance of its own."""

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw all the chance of a batch.

        Args:
            size: number of examples, from 0.
            shape: of one of them: (channels, height, width).
            generator: on the CPU, such as ``generator_at(seed, step)``.

        Returns:
            ``(size, k)`` float64 on the CPU: a row for each example, which can be divided among
            processes by rows.

        Raises:
            UserError: if examples of this shape cannot be changed so.
        """
        ...

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change images as it was drawn.

        Args:
            x: ``(batch, channels, height, width)`` uint8 or floating point, on any device, in any
                memory format. Not modified.
            drawn: ``(batch, k)`` from ``draw`` for images of this shape.

        Returns:
            Images of the type of ``x``, on its device, contiguous, without a gradient.

        Raises:
            UserError: if such images cannot be changed so.
            ValueError: if ``drawn`` does not belong to them.
        """
        ...


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Turn images over, so that left is right.

    Args:
        p: probability that an image is flipped.

    Raises:
        UserError: if ``p`` is not in ``[0, 1]``.

    Example:
        >>> x = torch.tensor([[1, 2, 3], [1, 2, 3]]).view(2, 1, 1, 3)
        >>> RandomHorizontalFlip().apply(x.byte(), torch.tensor([[0.0], [1.0]])).flatten(1).tolist()
        [[1, 2, 3], [3, 2, 1]]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_number("RandomHorizontalFlip", "p", self.p, high=1)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 1)``: 1 for an image that is turned over, 0 for others."""
        check_image(self, shape)
        chance = torch.rand(size, 1, dtype=torch.float64, generator=generator)
        return (chance < self.p).double()

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Turn those over that were drawn; see ``Transform.apply``."""
        check_batch(self, x, drawn, 1)
        turned = drawn[:, 0].nonzero()[:, 0]
        source = torch.arange(len(x))
        source[turned] = torch.arange(len(x), len(x) + len(turned))
        turned, source = (one.to(x.device, non_blocking=True) for one in (turned, source))
        x = x.contiguous()
        # Joined and picked again, as that copies whole images, where index_copy_ copies numbers.
        return torch.cat([x, x.index_select(0, turned).flip(3)]).index_select(0, source)


@dataclass(frozen=True)
class HLSJitter:
    """Add to hue, saturation and lightness, an amount for each image.

    Each amount is uniform from minus to plus the number given. Units are those of OpenCV's 8-bit
    HLS and of MXNet's ImageRecordIter (``random_h``, ``random_s``, ``random_l``), which, unlike
    this, stops hue at red instead of going round the circle, and draws whole numbers. Saturation
    and lightness stop at 0 and 255. Images of one channel have lightness only.

    Args:
        hue: in steps of 2 degrees, of which the circle has 180; in ``[0, 180]``.
        saturation: in 255ths of full saturation; in ``[0, 255]``.
        lightness: in 255ths of white; in ``[0, 255]``.

    Raises:
        UserError: if a number is out of range, or (later) images have two channels or more than
            three, or numbers that are outside of ``[0, 255]`` or not finite. On other devices than
            the CPU, where looking would mean waiting, floating-point images are clamped instead.

    Example:
        >>> red = torch.tensor([200, 0, 0]).view(1, 3, 1, 1)
        >>> drawn = torch.tensor([[60.0, 0.0, 50.0]])
        >>> HLSJitter().apply(red.byte(), drawn).flatten().tolist()
        [45, 255, 45]
    """

    hue: float = 36
    saturation: float = 50
    lightness: float = 50

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_number("HLSJitter", "hue", self.hue, high=180)
        check_number("HLSJitter", "saturation", self.saturation, high=255)
        check_number("HLSJitter", "lightness", self.lightness, high=255)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 3)``: what to add to hue, saturation and lightness, in their units."""
        _check_colors(check_image(self, shape)[0])
        most = torch.tensor([self.hue, self.saturation, self.lightness], dtype=torch.float64)
        return (torch.rand(size, 3, dtype=torch.float64, generator=generator) * 2 - 1) * most

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change the colors as it was drawn; see ``Transform.apply``."""
        check_batch(self, x, drawn, 3)
        _check_colors(x.shape[1])
        if x.is_floating_point():
            x = _in_color_range(x)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        amounts = drawn.to(x.device, dtype, non_blocking=True)
        hue, saturation, lightness = amounts.unbind(1)
        if x.shape[1] == 3:
            return shift_hls(x, hue=2 * hue, saturation=saturation, lightness=lightness)

        def change(block: Tensor, rows: slice, _planes: Tensor) -> Tensor:
            return block.add_(lightness[rows, None, None, None]).clamp_(0, 255)

        return mapped(x, (x.shape[2], x.shape[3]), change)


TRANSFORMS: dict[str, type] = {
    "random-crop": RandomCrop,
    "random-horizontal-flip": RandomHorizontalFlip,
    "hls-jitter": HLSJitter,
    "random-resized-crop": RandomResizedCrop,
}
"""Augmentations by the names that recipes give them."""


def _check_colors(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(
            "HLSJitter needs images of 3 channels (red, green, blue) or 1, got "
            f"{channels}; leave it out for such images"
        )


def _in_color_range(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return x.clamp(0, 255)
    if x.numel():
        low, high = (float(end) for end in x.aminmax())
        # A little more than that is the rounding of what came before; NaN is neither.
        if not (low >= -0.01 and high <= 255.01):
            raise UserError(
                f"HLSJitter needs values from 0 to 255, got {low:g} to {high:g}; change colors "
                "before images are normalized"
            )
    return x

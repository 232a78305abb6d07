"""Crops of images."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vicinal.data.transforms.base import check_batch, check_image, check_number, map_blocks
from vicinal.errors import UserError

_ATTEMPTS = 10


@dataclass(frozen=True)
class RandomCrop:
    """Pad images with black, and cut a window out of each at a random position.

    As He et al., "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385),
    section 4.2, for CIFAR: 4 pixels on each side, and a window of the original size. All positions
    are equally likely.

    Args:
        padding: pixels of black (zero) on each side; at most the side of the image, and less than
            the window, so that every window overlaps the image.
        size: side of the window, which is square; None for the height and width of the image.

    Raises:
        UserError: if a setting is out of range; on use, if the window is larger than the image.

    Example:
        >>> x = torch.full((1, 1, 2, 2), 9)
        >>> RandomCrop(padding=1).apply(x.byte(), torch.tensor([[0.0, 2.0]])).tolist()
        [[[[0, 0], [9, 0]]]]
    """

    padding: int = 4
    size: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number(self, "padding", kind=int)
        if self.size is not None:
            check_number(self, "size", low=1, kind=int)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 2)``: top and left of the window in the padded image."""
        _, height, width = check_image(self, shape)
        window = self._window(height, width)
        corners = [
            torch.randint(side + 2 * self.padding - cut + 1, (size,), generator=generator)
            for side, cut in zip((height, width), window, strict=True)
        ]
        return torch.stack(corners, dim=1).double()

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Cut ``(batch, channels, size, size)``; see ``Transform.apply``."""
        check_batch(self, x, drawn, 2)
        height, width = self._window(x.shape[2], x.shape[3])
        padded = F.pad(x, [self.padding] * 4)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (b, c, tops, lefts, h, w)
        corners = drawn.long()
        _check_inside(self, (corners >= 0) & (corners < torch.tensor(windows.shape[2:4])), x)
        rows, (top, left) = torch.arange(len(x)), corners.unbind(1)
        if x.device.type == "cpu" and x.dtype == torch.uint8:
            # NumPy copies rows of pixels, and takes a third of the time of PyTorch, which copies
            # single pixels.
            cut = windows.numpy()[rows.numpy(), :, top.numpy(), left.numpy()]
            return torch.from_numpy(np.ascontiguousarray(cut))
        rows, top, left = (one.to(x.device, non_blocking=True) for one in (rows, top, left))
        return windows[rows, :, top, left].contiguous()

    def _window(self, height: int, width: int) -> tuple[int, int]:
        window = (height, width) if self.size is None else (self.size, self.size)
        _check_fits(self, window, (height, width), self.padding)
        if self.padding > min(height, width) or self.padding >= min(window):
            most = min(height, width, *(side - 1 for side in window))
            raise UserError(
                f"RandomCrop: expected padding of at most {most} for images of {height} x {width} "
                f"and windows of {window[0]} x {window[1]}, got {self.padding}."
            )
        return window


@dataclass(frozen=True)
class CenterCrop:
    """Cut a square out of the middle of each image, without randomness, for evaluation.

    If the square cannot be centered exactly, it is half a pixel above or to the left of the center.

    Args:
        size: side of the square, in pixels.

    Raises:
        UserError: if it is less than 1; on use, if it is larger than the image.

    Example:
        >>> x = torch.arange(9).view(1, 1, 3, 3)
        >>> CenterCrop(1).apply(x.byte(), torch.empty(1, 0)).item()
        4
    """

    size: int

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number(self, "size", low=1, kind=int)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Return no random numbers, ``(size, 0)``."""
        _, height, width = check_image(self, shape)
        _check_fits(self, (self.size, self.size), (height, width), 0)
        return torch.empty(size, 0, dtype=torch.float64)

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Cut ``(batch, channels, size, size)``; see ``Transform.apply``."""
        check_batch(self, x, drawn, 0)
        _check_fits(self, (self.size, self.size), (x.shape[2], x.shape[3]), 0)
        top, left = ((side - self.size) // 2 for side in x.shape[2:])
        cut = x[:, :, top : top + self.size, left : left + self.size]
        return cut.clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut a box of random area and aspect ratio out of each image, and resize it to a square.

    From Szegedy et al., "Going Deeper with Convolutions" (https://arxiv.org/abs/1409.4842), section
    6. Boxes are drawn as in torchvision: the area and the logarithm of the ratio are uniform, and
    up to 10 boxes are drawn until one fits into the image. If none does, it is the largest box in
    the middle with the allowed ratio that is nearest to the image's. Interpolation is bilinear,
    without smoothing (torchvision's ``antialias=False``).

    Args:
        size: side of the square, in pixels.
        scale: smallest and largest share of the image's area, above 0 and at most 1.
        ratio: smallest and largest ratio of width to height, above 0.

    Raises:
        UserError: if a setting is out of range, or the larger number comes first.

    Example:
        >>> x = torch.tensor([0, 100, 200]).view(1, 1, 1, 3)
        >>> box = torch.tensor([[0.0, 1.0, 1.0, 2.0]])
        >>> RandomResizedCrop(4).apply(x.byte(), box)[0, 0, 0].tolist()
        [100, 125, 175, 200]
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_number(self, "size", low=1, kind=int)
        for name, ends, most in (("scale", self.scale, 1.0), ("ratio", self.ratio, 1e6)):
            numbers = [end for end in ends if isinstance(end, int | float)]
            if len(numbers) != 2 or not 0 < numbers[0] <= numbers[1] <= most:
                raise UserError(
                    f"RandomResizedCrop: expected {name} to be two numbers above 0 and at most "
                    f"{most:g}, the smaller one first, got {ends!r}."
                )

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 4)``: top, left, height and width of the box, in whole pixels."""
        _, height, width = check_image(self, shape)
        sides = torch.tensor([height, width], dtype=torch.float64)
        chance = torch.rand(size, 2 * _ATTEMPTS + 2, dtype=torch.float64, generator=generator)
        area = height * width * _between(self.scale, chance[:, :_ATTEMPTS])
        low, high = self.ratio
        half = (_between((math.log(low), math.log(high)), chance[:, _ATTEMPTS:-2]) / 2).exp()
        boxes = torch.stack([area.sqrt() / half, area.sqrt() * half], dim=2).round_()
        fits = ((boxes >= 1) & (boxes <= sides)).all(2)
        box = boxes[torch.arange(size), fits.int().argmax(1)]
        corner = (chance[:, -2:] * (sides - box + 1)).floor_()
        # If no box fits: the largest one in the middle whose ratio is the nearest to the image's.
        nearest = min(max(width / height, low), high)
        middle = torch.tensor([min(height, width / nearest), min(width, height * nearest)])
        middle = middle.double().round().clamp_min(1)
        instead = torch.cat([((sides - middle) / 2).floor(), middle])
        return torch.cat([corner, box], dim=1).where(fits.any(1, keepdim=True), instead)

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Return ``(batch, channels, size, size)``; see ``Transform.apply``."""
        check_batch(self, x, drawn, 4)
        sides = torch.tensor(x.shape[2:])
        corner, box = drawn[:, :2], drawn[:, 2:]
        _check_inside(self, (corner >= 0) & (box >= 1) & (corner + box <= sides), x)
        # Centers of the new pixels, within those of the outermost pixels of the box.
        center = (torch.arange(self.size, dtype=torch.float64) + 0.5)[:, None, None]
        within = torch.minimum((center * (box / self.size) - 0.5).clamp_min_(0), box - 1)
        place = (2 * (corner + within) + 1) / sides - 1  # (size, b, 2), from -1 to 1
        working = torch.promote_types(x.dtype, torch.float32)
        down, right = place.to(x.device, working, non_blocking=True).permute(2, 1, 0)

        def resize(block: Tensor, rows: slice) -> Tensor:
            grid = block.new_empty(len(block), self.size, self.size, 2)
            grid[..., 0] = right[rows, None, :]
            grid[..., 1] = down[rows, :, None]
            return F.grid_sample(block, grid, padding_mode="border", align_corners=False)

        return map_blocks(x, (self.size, self.size), resize)


def _between(ends: tuple[float, float], chance: Tensor) -> Tensor:
    low, high = torch.tensor(ends, dtype=torch.float64)
    return torch.lerp(low, high, chance)


def _check_fits(owner: object, window: tuple[int, int], side: tuple[int, int], pad: int) -> None:
    height, width = side[0] + 2 * pad, side[1] + 2 * pad
    if window[0] > height or window[1] > width:
        padded = f" padded by {pad} pixels on each side" if pad else ""
        raise UserError(
            f"{type(owner).__name__}: expected a window that fits in images of {side[0]} x "
            f"{side[1]}{padded}, got {window[0]} x {window[1]}. Choose a smaller size."
        )


def _check_inside(owner: object, inside: Tensor, x: Tensor) -> None:
    if not inside.all():
        raise ValueError(
            f"{type(owner).__name__}: expected boxes inside images of {x.shape[2]} x {x.shape[3]}, "
            "got one that is partly outside. Call draw with the shape of these images."
        )

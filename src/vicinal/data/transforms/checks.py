"""What augmentations refuse: numbers out of range, and data that are no images."""

import torch
from torch import Tensor

from vicinal.errors import UserError


def check_number(
    owner: str, name: str, value: float, *, low: float = 0, high: float = 1e6, whole: bool = False
) -> None:
    """Refuse a setting that is no (whole) number from ``low`` to ``high``."""
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise UserError(
            f"{owner} needs {name} to be {kind} from {low:g} to {high:g}, got {value!r}"
        )


def check_image(owner: object, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width of an example, which has to be an image."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"{type(owner).__name__} changes images (channels, height, width), but an example "
            f"has the shape {tuple(shape)}; leave it out for such data"
        )
    channels, height, width = shape
    return channels, height, width


def check_batch(owner: object, x: Tensor, drawn: Tensor, columns: int) -> None:
    """Refuse a batch of anything but images, or ``drawn`` of another shape."""
    check_image(owner, tuple(x.shape[1:]))
    name = type(owner).__name__
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise UserError(f"{name} needs images in uint8 or floating point, got {x.dtype}")
    if drawn.shape != (len(x), columns):
        raise ValueError(
            f"{name} needs what its draw returned, {columns} numbers for each of {len(x)} "
            f"images, got the shape {tuple(drawn.shape)}."
        )

"""The interface of transforms of batches of images, and what they share."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from vicinal.errors import UserError


class Transform(Protocol):
    """A function of a batch of images, with random numbers of its own for each image.

    ``draw`` draws all random numbers of a batch on the CPU; ``apply`` is deterministic and runs on
    any device.
    """

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the random numbers of a batch.

        Args:
            size: number of examples, from 0.
            shape: shape of one example: (channels, height, width).
            generator: on the CPU, such as ``generator_at(seed, step)``.

        Returns:
            ``(size, k)`` float64 on the CPU: one row per example, so that processes can share them
            by rows.

        Raises:
            UserError: if examples of this shape cannot be transformed.
        """
        ...

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Transform images.

        Args:
            x: ``(batch, channels, height, width)`` uint8 or floating point, on any device, in any
                memory format. Not modified.
            drawn: ``(batch, k)`` on the CPU, from ``draw`` for images of this shape.

        Returns:
            Images of the type of ``x``, on its device, contiguous, without a gradient.

        Raises:
            UserError: if such images cannot be transformed.
            ValueError: if ``drawn`` has a different shape.
        """
        ...


def check_number(
    owner: object, name: str, *, low: float = 0, high: float = 1e6, kind: type[float] = float
) -> None:
    """Raise if a setting is not a number (or integer) from ``low`` to ``high``."""
    value = getattr(owner, name)
    kinds = (int,) if kind is int else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        expected = "an integer" if kind is int else "a number"
        raise UserError(
            f"{type(owner).__name__}: expected {name} to be {expected} from {low:g} to {high:g}, "
            f"got {value!r}."
        )


def check_image(owner: object, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width of an example, which has to be an image."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"{type(owner).__name__}: expected images (channels, height, width), got examples of "
            f"shape {tuple(shape)}. Remove this transform."
        )
    channels, height, width = shape
    return channels, height, width


def check_batch(owner: object, x: Tensor, drawn: Tensor, columns: int) -> None:
    """Raise if a batch has no images, or ``check_drawn`` does."""
    check_image(owner, tuple(x.shape[1:]))
    check_drawn(owner, x, drawn, columns)


def check_drawn(owner: object, x: Tensor, drawn: Tensor, columns: int) -> None:
    """Raise if inputs are integers other than uint8, or ``drawn`` has a different shape."""
    name = type(owner).__name__
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise UserError(
            f"{name}: expected inputs in uint8 or floating point, got {x.dtype}. Remove this "
            "transform."
        )
    if drawn.shape != (len(x), columns):
        raise ValueError(
            f"{name}: expected drawn= of shape {(len(x), columns)}, got "
            f"{tuple(drawn.shape)}. Pass what {name}.draw returned for this batch."
        )


def map_blocks(
    x: Tensor, size: tuple[int, int], function: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """Apply a floating-point function to images, in blocks that fit in the cache of a CPU.

    Args:
        x: ``(batch, channels, height, width)`` uint8 or floating point. Not modified.
        size: (height, width) of the results.
        function: maps a block of images, which is float32 (float64 if ``x`` is) and must not be
            modified, and their rows in ``x`` to new images.

    Returns:
        ``(batch, channels, *size)``, contiguous, of the type of ``x``. Results for uint8 have to be
        from 0 to 255, and are rounded to the nearest integer, half to even.

    Example:
        >>> x = torch.full((2, 1, 1, 1), 100, dtype=torch.uint8)
        >>> map_blocks(x, (1, 1), lambda block, rows: block * 1.007).flatten().tolist()
        [101, 101]
    """
    batch, channels, height, width = x.shape
    working = torch.promote_types(x.dtype, torch.float32)
    # Launching an operation on other devices takes longer.
    pixels = 2**16 if x.device.type == "cpu" else 2**22
    step = max(1, pixels // max(height * width, size[0] * size[1]))
    out = x.new_empty(batch, channels, *size)
    for start in range(0, batch, step):
        rows = slice(start, start + step)
        block = x[rows].to(working, memory_format=torch.contiguous_format)
        new = function(block, rows)
        # On the CPU, PyTorch vectorizes the conversions to int16 and from there to uint8, but not
        # the direct one.
        out[rows] = new.round().to(torch.int16) if x.dtype == torch.uint8 else new
    return out

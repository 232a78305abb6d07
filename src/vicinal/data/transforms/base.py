"""The interface of transforms of batches of images, and checks of their arguments."""

from typing import Protocol

import torch
from torch import Tensor

from vicinal.errors import UserError


class Transform(Protocol):
    """A function of a batch of images, each with random numbers of its own.

    ``draw`` draws all random numbers of a batch on the CPU; ``apply`` is deterministic and runs on
    any device.
    """

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw the random numbers of a batch.

        Args:
            size: number of examples, from 0.
            shape: of one example: (channels, height, width).
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
            drawn: ``(batch, k)`` from ``draw`` for images of this shape.

        Returns:
            Images of the type of ``x``, on its device, contiguous, without a gradient.

        Raises:
            UserError: if such images cannot be transformed.
            ValueError: if ``drawn`` has another shape.
        """
        ...


def check_number(
    owner: str, name: str, value: float, *, low: float = 0, high: float = 1e6, whole: bool = False
) -> None:
    """Raise if a setting is not a number (or integer) from ``low`` to ``high``."""
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise UserError(
            f"{owner}: expected {name} to be {kind} from {low:g} to {high:g}, got {value!r}"
        )


def check_image(owner: object, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width of an example, which has to be an image."""
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(
            f"{type(owner).__name__}: expected images (channels, height, width), got examples of "
            f"shape {tuple(shape)}; remove this transform"
        )
    channels, height, width = shape
    return channels, height, width


def check_batch(owner: object, x: Tensor, drawn: Tensor, columns: int) -> None:
    """Raise if a batch has no images, or ``drawn`` has another shape."""
    check_image(owner, tuple(x.shape[1:]))
    name = type(owner).__name__
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise UserError(f"{name}: expected images in uint8 or floating point, got {x.dtype}")
    if drawn.shape != (len(x), columns):
        raise ValueError(
            f"{name}: expected drawn of shape {(len(x), columns)}, got {tuple(drawn.shape)}; pass "
            "the result of its draw."
        )

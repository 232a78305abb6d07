"""Random changes of hue, lightness and saturation (HLS)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.data.transforms.base import check_batch, check_image, check_number, map_blocks
from vicinal.errors import UserError


@dataclass(frozen=True)
class HLSJitter:
    """Add a random amount to the hue, saturation and lightness of each image.

    Each amount is uniform between minus and plus the setting. Units are those of OpenCV's 8-bit
    HLS and of MXNet's ImageRecordIter (``random_h``, ``random_s``, ``random_l``). ImageRecordIter
    draws integers and clamps hue at red; this draws real numbers and wraps around. Saturation and
    lightness are clamped to 0 and 255. HLS is that of Python's ``colorsys``, where gray has the hue
    of red, so that added saturation makes it reddish. Images of one channel have only lightness.

    Args:
        hue: in steps of 2 degrees, in ``[0, 180]``.
        saturation: in 255ths of full saturation; in ``[0, 255]``.
        lightness: in 255ths of white; in ``[0, 255]``.

    Raises:
        UserError: if a setting is out of range; on use, if images have neither 1 nor 3 channels, or
            values outside of ``[0, 255]``. On accelerators, where a check would synchronize,
            floating-point images are clamped instead.

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
        """Check the settings."""
        check_number(self, "hue", high=180)
        check_number(self, "saturation", high=255)
        check_number(self, "lightness", high=255)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 3)``: amounts of hue, saturation and lightness."""
        _check_channels(check_image(self, shape)[0])
        most = torch.tensor([self.hue, self.saturation, self.lightness], dtype=torch.float64)
        return (torch.rand(size, 3, dtype=torch.float64, generator=generator) * 2 - 1) * most

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change the colors; see ``Transform.apply``."""
        check_batch(self, x, drawn, 3)
        _, channels, height, width = x.shape
        _check_channels(channels)
        if x.is_floating_point():
            x = _in_color_range(x)
        working = torch.promote_types(x.dtype, torch.float32)
        amounts = drawn.to(x.device, working, non_blocking=True)[..., None, None]
        hue, saturation, lightness = amounts.unbind(1)
        turn = hue / 30
        turns = torch.stack([turn, turn - 2, turn + 2], dim=1)  # from each primary color
        # From -3 to 3, like `way` in _shifted, so that their sum is wrapped only once.
        turns = turns - 6 * (turns / 6).round()
        twice = saturation * (2 / 255)

        def change(block: Tensor, rows: slice) -> Tensor:
            if channels == 1:
                return (block + lightness[rows, None]).clamp_(0, 255)
            return _shifted(block, turns[rows], twice[rows], lightness[rows])

        return map_blocks(x, (height, width), change)


def _check_channels(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(
            f"HLSJitter: expected images of 3 channels (red, green, blue) or 1, got {channels}. "
            "Remove this transform."
        )


def _in_color_range(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return x.clamp(0, 255)
    if x.numel():
        low, high = (float(end) for end in x.aminmax())
        # Earlier transforms may have rounding errors. NaN fails too.
        if not (low >= -0.01 and high <= 255.01):
            raise UserError(
                f"HLSJitter: expected values from 0 to 255, got {low:g} to {high:g}. Put it before "
                "Normalize."
            )
    return x


def _shifted(x: Tensor, turns: Tensor, twice: Tensor, lightness: Tensor) -> Tensor:
    """Shift colors; ``twice`` is added to twice the saturation in ``[0, 1]``."""
    red, green, blue = x.unbind(1)
    tiny = torch.finfo(x.dtype).tiny
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = high - low
    # Sextants of the circle from red, up to 3 on either side. On the way, first the middle channel,
    # then the highest, then what red has lost rises from 0 to 1. Toward green it is positive.
    way = (green - low).add_(blue - red).add_(chroma)
    way.div_(chroma.clamp_min(tiny)).copysign_(green - blue)

    light = high.add_(low).mul_(0.5)
    saturation = chroma.div_(_room(light).clamp_min_(tiny)).add_(twice).clamp_(0, 2)
    light.add_(lightness).clamp_(0, 255)
    chroma = saturation.mul_(_room(light))

    part = (way[:, None] + turns).abs_().sub_(3).abs_().clamp_(1, 2)
    # A channel is half of the chroma below the lightness where its part is 1, and above where 2.
    base = light.sub_(chroma, alpha=1.5)[:, None]
    return torch.addcmul(base, chroma[:, None], part)


def _room(light: Tensor) -> Tensor:
    """Return the chroma that half of full saturation has at a lightness in ``[0, 255]``."""
    return torch.minimum(light, 255 - light)

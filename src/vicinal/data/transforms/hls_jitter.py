"""Random changes of hue, lightness and saturation (HLS)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vicinal.data.transforms.base import check_batch, check_image, check_number
from vicinal.data.transforms.pixels import mapped
from vicinal.errors import UserError


@dataclass(frozen=True)
class HLSJitter:
    """Add a random amount to the hue, saturation and lightness of each image.

    Each amount is uniform between minus and plus the setting. Units are those of OpenCV's 8-bit
    HLS and of MXNet's ImageRecordIter (``random_h``, ``random_s``, ``random_l``), which, unlike
    this, clamps hue at red instead of wrapping around, and draws integers. Saturation and
    lightness are clamped to 0 and 255. Images of one channel have only lightness.

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
        check_number("HLSJitter", "hue", self.hue, high=180)
        check_number("HLSJitter", "saturation", self.saturation, high=255)
        check_number("HLSJitter", "lightness", self.lightness, high=255)

    def draw(self, size: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw ``(size, 3)``: amounts of hue, saturation and lightness."""
        _check_colors(check_image(self, shape)[0])
        most = torch.tensor([self.hue, self.saturation, self.lightness], dtype=torch.float64)
        return (torch.rand(size, 3, dtype=torch.float64, generator=generator) * 2 - 1) * most

    @torch.no_grad()
    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change the colors; see ``Transform.apply``."""
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


def _check_colors(channels: int) -> None:
    if channels not in (1, 3):
        raise UserError(
            f"HLSJitter: expected images of 3 channels (red, green, blue) or 1, got {channels}; "
            "remove this transform"
        )


def _in_color_range(x: Tensor) -> Tensor:
    if x.device.type != "cpu":
        return x.clamp(0, 255)
    if x.numel():
        low, high = (float(end) for end in x.aminmax())
        # Earlier transforms may have rounding errors. NaN fails too.
        if not (low >= -0.01 and high <= 255.01):
            raise UserError(
                f"HLSJitter: expected values from 0 to 255, got {low:g} to {high:g}; put it before "
                "Normalize"
            )
    return x


def shift_hls(x: Tensor, *, hue: Tensor, saturation: Tensor, lightness: Tensor) -> Tensor:
    """Add an amount per image to the hue, saturation and lightness of its pixels.

    Saturation and lightness are clamped to 0 and 255, hue wraps around. HLS is that of Python's
    ``colorsys``, where gray has the hue of red, so that added saturation makes it reddish.

    Args:
        x: ``(batch, 3, height, width)`` uint8 or floating point: red, green and blue in
            ``[0, 255]``. Not modified.
        hue: ``(batch,)`` in degrees, on the device of ``x``, float32 or float64 as the arithmetic
            (so are the next two).
        saturation: ``(batch,)`` in 255ths of full saturation.
        lightness: ``(batch,)`` in 255ths of white.

    Returns:
        Of the shape and type of ``x``, contiguous; in floating point in ``[0, 255]`` up to
        rounding.

    Example:
        >>> red = torch.tensor([200.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> none = torch.zeros(1)
        >>> green = shift_hls(red, hue=none + 120, saturation=none, lightness=none)
        >>> [round(value) for value in green.flatten().tolist()]
        [0, 200, 0]
    """
    turn = hue / 60
    turns = torch.stack([turn, turn - 2, turn + 2], dim=1)  # from each primary color
    # From -3 to 3, like the way in _shift, so that their sum is wrapped only once.
    turns = (turns - 6 * (turns / 6).round())[:, :, None, None]
    double, lighter = (saturation * (2 / 255))[:, None, None], lightness[:, None, None]

    def change(block: Tensor, rows: slice, planes: Tensor) -> Tensor:
        return _shift(block, turns[rows], double[rows], lighter[rows], planes)

    return mapped(x, (x.shape[2], x.shape[3]), change, planes=6)


def _shift(x: Tensor, turns: Tensor, double: Tensor, lighter: Tensor, planes: Tensor) -> Tensor:
    """Shift ``x`` in place; ``double`` is added to twice the saturation in ``[0, 1]``."""
    red, green, blue = x.unbind(1)
    light, low, chroma, way, other, room = planes.unbind(0)
    tiny = torch.finfo(x.dtype).tiny
    high = torch.maximum(torch.maximum(red, green, out=light), blue, out=light)
    torch.minimum(torch.minimum(red, green, out=low), blue, out=low)
    torch.sub(high, low, out=chroma)
    # Sextants of the circle from red, up to 3 on either side: on the way the middle channel, the
    # highest, or what red has lost rises from 0 to 1, one after the other, and greener is positive.
    torch.sub(green, low, out=way).add_(torch.sub(blue, red, out=other)).add_(chroma)
    way.div_(torch.clamp_min(chroma, tiny, out=other))
    way.copysign_(torch.sub(green, blue, out=other))

    light.add_(low).mul_(0.5)
    saturation = chroma.div_(_room(light, out=room).clamp_min_(tiny)).add_(double).clamp_(0, 2)
    light.add_(lighter).clamp_(0, 255)
    chroma = saturation.mul_(_room(light, out=room))

    part = torch.add(way[:, None], turns, out=x).abs_().sub_(3).abs_().clamp_(1, 2)
    # A channel is half of the chroma below the lightness where its part is 1, and above where 2.
    base = light.sub_(chroma, alpha=1.5)[:, None]
    return torch.addcmul(base, chroma[:, None], part, out=x)


def _room(light: Tensor, *, out: Tensor) -> Tensor:
    """Return the chroma that half of full saturation has at a lightness in ``[0, 255]``."""
    return torch.minimum(light, torch.neg(light, out=out).add_(255), out=out)

"""Colors by hue, lightness and saturation (HLS)."""

import torch
from torch import Tensor

from vicinal.data.transforms.pixels import mapped


def shift_hls(x: Tensor, *, hue: Tensor, saturation: Tensor, lightness: Tensor) -> Tensor:
    """Add to hue, saturation and lightness of every pixel, an amount for each image.

    Saturation and lightness stop at 0 and 255, hue goes round the circle. HLS is that of Python's
    ``colorsys``, where gray has the hue of red, so that added saturation makes it reddish.

    Args:
        x: ``(batch, 3, height, width)`` uint8 or floating point: red, green and blue in
            ``[0, 255]``. Not modified.
        hue: ``(batch,)`` in degrees, on the device of ``x`` and float32 (float64 where ``x`` is),
            as the next two.
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
    turns = torch.stack([turn, turn - 2, turn + 2], dim=1)  # as measured from each primary color
    # Kept from -3 to 3, like the way in _shift, so that their sum needs to be folded but once.
    turns = (turns - 6 * (turns / 6).round())[:, :, None, None]
    double, lighter = (saturation * (2 / 255))[:, None, None], lightness[:, None, None]

    def change(block: Tensor, rows: slice, planes: Tensor) -> Tensor:
        return _shift(block, turns[rows], double[rows], lighter[rows], planes)

    return mapped(x, (x.shape[2], x.shape[3]), change, planes=6)


def _shift(x: Tensor, turns: Tensor, double: Tensor, lighter: Tensor, planes: Tensor) -> Tensor:
    """Shift ``x`` in place; ``double`` is what to add to twice the saturation in ``[0, 1]``."""
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

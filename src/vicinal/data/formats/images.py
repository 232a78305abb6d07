"""Decoding of image files into pixels of one size and number of channels."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.formats.exif import may_be_turned, orientation_of, turned_upright
from vicinal.data.source_spec import choice, integer
from vicinal.errors import UserError

Channels = Literal[1, 3]

IMAGE_OPTIONS = ("size", "channels", "exif", "alpha")
"""The options of a source that ``image_options`` parses."""

_MOST_PIXELS = 1 << 27

# Deflate and the Huffman codes of JPEG need at least as many bytes, so a header that claims more
# is damaged; small images need not be checked.
_PIXELS_PER_BYTE = 10_000
_SMALL = 1 << 16


class ImageOptions(NamedTuple):
    """How images become pixels.

    Args:
        channels: 3 for RGB, 1 for gray.
        size: if given, the shorter side is resized to it and the middle is cut out.
        exif: whether images are turned upright by the orientation in their EXIF data.
        alpha: the color that transparent images are composed onto, or ``"ignore"``.
        max_bytes: the most bytes that one decoded image may take.
    """

    channels: Channels = 3
    size: int | None = None
    exif: bool = True
    alpha: Literal["white", "black", "ignore"] = "white"
    max_bytes: int = MAX_BYTES


def image_options(options: Mapping[str, str], max_bytes: int) -> ImageOptions:
    """Parse the options of a source.

    Raises:
        UserError: if one has an unknown value.

    Example:
        >>> image_options({"alpha": "black", "size": "32"}, 1000)
        ImageOptions(channels=3, size=32, exif=True, alpha='black', max_bytes=1000)
    """
    channels: Any = int(choice("channels", options, ("1", "3")) or 3)
    exif = choice("exif", options, ("apply", "ignore")) != "ignore"
    alpha: Any = choice("alpha", options, ("white", "black", "ignore")) or "white"
    return ImageOptions(channels, integer("size", options), exif, alpha, max_bytes)


@dataclass
class ImageChanges:
    """Counts what decoding changed in images.

    Args:
        images: how many were decoded.
        turned: by the orientation in their EXIF data.
        composed: transparent ones, onto a color.
        warned: decoded although the decoder warned.
        warning: the first such warning.
        resized: resized or cropped.
        sizes: (width, height) of the smallest and the largest of those.
    """

    images: int = 0
    turned: int = 0
    composed: int = 0
    warned: int = 0
    warning: str = ""
    resized: int = 0
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def warn(self, warning: str) -> None:
        """Count an image that was decoded with a warning."""
        self.warned += 1
        self.warning = self.warning or warning

    def resize(self, width: int, height: int) -> None:
        """Count an image that was resized or cropped, by its size before."""
        self.resized += 1
        sizes = sorted([*self.sizes, (width, height)], key=lambda size: size[0] * size[1])
        self.sizes = [sizes[0], sizes[-1]]

    def notes(self, options: ImageOptions, *, all_read: bool) -> tuple[Note, ...]:
        """Return notes for the user.

        Args:
            options: how the images were decoded.
            all_read: whether all images were decoded, not only the first ones.
        """
        of = f"of {self.images} images" if all_read else f"of the first {self.images} images"
        sizes = " to ".join(f"{w}x{h}" for w, h in dict.fromkeys(self.sizes))
        size = options.size
        counted = (
            (self.resized, f"were resized and cropped from {sizes} to {size}x{size}"),
            (
                self.turned,
                "were turned by the orientation in their EXIF data; exif=ignore leaves them as "
                "they are stored",
            ),
            (
                self.composed,
                f"are transparent and were composed onto {options.alpha}; alpha=black or "
                "alpha=ignore changes this",
            ),
            (self.warned, f"were decoded but may be damaged, such as {self.warning}"),
        )
        return tuple(
            Note(f"{count} {of} {text}", doubtful=text.startswith("were decoded"))
            for count, text in counted
            if count
        )


def decode(
    data: bytes,
    options: ImageOptions = ImageOptions(),  # noqa: B008 (immutable)
    *,
    where: str,
    changes: ImageChanges | None = None,
) -> np.ndarray:
    """Decode an image: JPEG, PNG and any other format that Pillow reads.

    Gray images become RGB by repetition, and color images gray by luma. Palettes are looked up,
    CMYK is converted, and 16 bits per channel are rounded to 8. A JPEG about which libjpeg only
    warns is decoded.

    Args:
        data: the bytes of the file.
        options: channels, size, and how orientation and transparency are treated.
        where: file, or file and record, for the error.
        changes: counts what was changed.

    Returns:
        ``(height, width, channels)`` uint8.

    Raises:
        UserError: if the image is damaged, incomplete, of an unknown format, of 32 bits per
            channel, or claims more pixels than its bytes can hold or ``max_bytes`` allows.

    Example:
        >>> import simplejpeg
        >>> gray = simplejpeg.encode_jpeg(np.full((8, 8, 1), 128, np.uint8), colorspace="GRAY")
        >>> decode(gray, where="gray.jpg").shape
        (8, 8, 3)
    """
    decoder = _decode_jpeg if data[:2] == b"\xff\xd8" else _decode_other
    try:
        return decoder(data, options, where, changes or ImageChanges())
    except UserError:
        raise
    except Exception as error:  # decoders raise errors of every kind
        reason = str(error) or type(error).__name__
        if "cannot identify" in reason:  # Pillow adds an address in memory
            reason = "unknown format"
        raise UserError(
            f"{where}: {_kind(data)} cannot be decoded ({reason}); it is damaged, incomplete or "
            "not an image"
        ) from error


def _decode_jpeg(
    data: bytes, options: ImageOptions, where: str, changes: ImageChanges
) -> np.ndarray:
    from PIL import Image
    from simplejpeg import decode_jpeg, decode_jpeg_header

    least = options.size or 0
    try:
        height, width, space, _ = decode_jpeg_header(data)
        _check_claim(height * width, len(data), where, options)
        if space in {"CMYK", "YCCK"}:  # Pillow knows that Adobe's are inverted
            decode_jpeg(data, "CMYK")  # but not that some are damaged
            return _decode_other(data, options, where, changes)
        space = "RGB" if options.channels == 3 else "GRAY"
        # The decoder halves the size at no cost, as long as it stays larger than asked for.
        pixels: np.ndarray = decode_jpeg(data, space, min_height=least, min_width=least)
    except UserError:
        raise
    except ValueError as error:
        # libjpeg warns. Pillow decodes the image all the same, unless it is incomplete.
        image = _decode_other(data, options, where, changes)
        changes.warn(f"{where} ({error})")
        return image
    orientation = 1
    if options.exif and may_be_turned(data):
        with Image.open(io.BytesIO(data)) as whole:
            orientation = orientation_of(whole)
    if options.size is None and orientation == 1:
        return pixels
    decoded = Image.fromarray(pixels[:, :, 0] if options.channels == 1 else pixels)
    if orientation > 1:
        changes.turned += 1
        decoded = turned_upright(decoded, orientation)
        height, width = (width, height) if orientation > 4 else (height, width)
    return fit(decoded, options.size, changes, before=(width, height))


def _decode_other(
    data: bytes, options: ImageOptions, where: str, changes: ImageChanges
) -> np.ndarray:
    from PIL import Image

    if data[:4] == b"\x89PNG":
        _check_png(data)
    with Image.open(io.BytesIO(data)) as image:
        compact = image.format in {"PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"}
        count = image.width * image.height
        _check_claim(count, len(data) if compact else None, where, options)
        image.load()
        return to_pixels(image, options, where, changes)


def to_pixels(image: Any, options: ImageOptions, where: str, changes: ImageChanges) -> np.ndarray:
    """Convert a Pillow image: turn it upright, convert its mode, and fit it to a size.

    Returns:
        ``(height, width, channels)`` uint8.

    Raises:
        UserError: if it has 32 bits per channel.
    """
    from PIL import Image

    orientation = orientation_of(image) if options.exif else 1
    if orientation > 1:
        changes.turned += 1
        image = turned_upright(image, orientation)
    mode = "RGB" if options.channels == 3 else "L"
    if image.mode.startswith("I;16"):
        eight = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
        image = Image.fromarray(eight.astype(np.uint8))
    elif image.mode in {"I", "F"}:
        raise UserError(
            f"{where}: expected 8 or 16 bits per channel, got 32, which have no defined white "
            "level; save the image with 8 or 16 bits"
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if options.alpha != "ignore" and image.getextrema()[3][0] < 255:
            ground = Image.new("RGBA", image.size, options.alpha)
            ground.alpha_composite(image)
            image = ground
            changes.composed += 1
    return fit(image.convert(mode), options.size, changes)


def fit(
    image: Any,
    size: int | None,
    changes: ImageChanges,
    *,
    before: tuple[int, int] | None = None,
) -> np.ndarray:
    """Resize the shorter side of a Pillow image to a size (bilinear), and cut out the middle.

    Args:
        image: gray or RGB.
        size: None for the size that it has.
        changes: counts it if its size changes.
        before: its (width, height) in the file, if it was decoded at another size.

    Returns:
        ``(height, width, channels)`` uint8.
    """
    from PIL import Image, ImageOps

    if size is not None:
        before = before or image.size
        if before != (size, size):
            changes.resize(*before)
        image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _check_png(data: bytes) -> None:
    """Check the checksums of a PNG, since Pillow ignores those of the pixels."""
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        (expected,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != expected:
            raise ValueError(f"wrong checksum of {kind!r} at byte {at}")
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError("its end is missing")


def _check_claim(pixels: int, count: int | None, where: str, options: ImageOptions) -> None:
    most = _MOST_PIXELS
    if count is not None:
        most = min(most, max(_SMALL, count * _PIXELS_PER_BYTE))
    if not 0 < pixels <= most:
        of = "" if count is None else f" of {count} bytes"
        raise UserError(f"{where}: an image{of} claims {pixels} pixels; its header is damaged")
    if 4 * pixels > options.max_bytes:  # as many bytes as Pillow takes
        raise UserError(
            f"{where}: an image of {pixels} pixels takes {4 * pixels} bytes once it is decoded, "
            f"more than max_bytes = {options.max_bytes}; raise max_bytes if the file is genuine"
        )


def _kind(data: bytes) -> str:
    kinds = {b"\xff\xd8": "a JPEG", b"\x89PNG": "a PNG", b"GIF8": "a GIF", b"BM": "a BMP"}
    named = [kind for start, kind in kinds.items() if data.startswith(start)]
    return named[0] if named else f"a file that begins with {data[:8].hex(' ') or 'nothing'}"

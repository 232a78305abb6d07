"""Decoding of image files into pixels of one size and number of channels."""

import io
import re
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile
from simplejpeg import decode_jpeg, decode_jpeg_header

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note
from vicinal.data.formats.bounded_read import check_claim
from vicinal.data.source_spec import integer
from vicinal.errors import UserError
from vicinal.options import choice

IMAGE_OPTIONS = ("size", "channels", "exif", "alpha")
"""The options of a source that ``image_options`` parses."""

_COMPACT = {"PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"}
"""Formats in which a byte stands for at most eight pixels before deflate, four bytes each."""
_BYTES_PER_BYTE = 32

_TURNED = "were turned by the orientation in their EXIF data; exif=ignore disables this"
_COMPOSED = "are transparent and were composed onto {}; alpha=black or alpha=ignore changes this"

_ROUNDED = "have 16 bits per channel and were rounded to 8"
_DARK = (
    "have 16 bits per channel, with values in the lowest eighth of the range only, so they are "
    "nearly black after rounding to 8 bits; scale them to the whole range"
)
_FRAMES = "have several frames or pages, of which the first was read"

_ORIENTATION = 0x0112
_TURNS_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_PNG_BITS = 24  # the byte of a PNG that has the bits per channel
_APP0 = 0xE0


class ImageOptions(NamedTuple):
    """How images become pixels.

    Args:
        channels: 3 for RGB, 1 for gray.
        size: if given, the shorter side is resized to it and the middle is cut out.
        exif: whether images are turned upright by the orientation in their EXIF data.
        alpha: the color that transparent images are composed onto, or ``"ignore"``.
        max_bytes: the most bytes that one decoded image may take.
        raw: ``(height, width, channels)`` if images are stored as pixels instead.
    """

    channels: int = 3
    size: int | None = None
    exif: bool = True
    alpha: Literal["white", "black", "ignore"] = "white"
    max_bytes: int = MAX_BYTES
    raw: tuple[int, ...] | None = None


def image_options(options: Mapping[str, str], max_bytes: int) -> ImageOptions:
    """Parse the options of a source.

    Raises:
        UserError: if one has an unknown value.

    Example:
        >>> image_options({"alpha": "black", "size": "32"}, 1000)[:4]
        (3, 32, True, 'black')
    """
    channels = int(choice("channels", options, ("1", "3")) or 3)
    exif = choice("exif", options, ("apply", "ignore")) != "ignore"
    alpha: Any = choice("alpha", options, ("white", "black", "ignore")) or "white"
    return ImageOptions(channels, integer("size", options), exif, alpha, max_bytes)


@dataclass
class ImageChanges:
    """Counts what decoding changed in images.

    Args:
        images: how many were decoded.
        counts: how many were changed, for each sentence that says how.
        warned: how many were decoded although the decoder warned.
        warning: the first of these warnings.
    """

    images: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    warning: str = ""

    def add(self, other: "ImageChanges") -> None:
        """Add the counts of other images."""
        self.images += other.images
        self.counts.update(other.counts)
        self.warned += other.warned
        self.warning = self.warning or other.warning

    def notes(self, *, all_read: bool) -> tuple[Note, ...]:
        """Return notes for the user. ``all_read``: whether all images were decoded."""
        of = f"of {self.images} images" if all_read else f"of the first {self.images} images"
        notes = [
            Note(f"{count} {of} {text}", doubtful=text == _DARK)
            for text, count in self.counts.items()
        ]
        if self.warning:
            text = f"were decoded but may be damaged, such as {self.warning}"
            notes.append(Note(f"{self.warned} {of} {text}", doubtful=True))
        return tuple(notes)


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
    changes = changes or ImageChanges()
    try:
        if data[:2] == b"\xff\xd8":
            image, size = _open_jpeg(data, options, where, changes)
        else:
            image, size = _open(data, options, where, changes)
        return to_pixels(image, options, where, changes, stored_size=size)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{where}: the image has more pixels than Pillow decodes ({error}). Make it smaller."
        ) from error
    except Exception as error:  # decoders raise errors of every kind
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):  # its text has an address in memory
            reason = "unknown format"
        raise UserError(
            f"{where}: the image cannot be decoded ({reason}). It is damaged, incomplete or not an "
            "image."
        ) from error


def _open_jpeg(
    data: bytes, options: ImageOptions, where: str, changes: ImageChanges
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a JPEG. Return the image, perhaps smaller than stored, and its stored size."""
    # The decoder shrinks images at no cost. From twice the size on, results are those of a whole
    # decoding, up to rounding.
    least = 2 * (options.size or 0)
    try:
        height, width, space, _ = decode_jpeg_header(data)
        check_claim(where, 4 * height * width, _BYTES_PER_BYTE * len(data), options.max_bytes)
        if space in {"CMYK", "YCCK"}:  # Pillow knows that Adobe's are inverted
            decode_jpeg(data, "CMYK")  # but not that some are damaged
            return _open(data, options, where, changes)
        pixels = decode_jpeg(
            data, "RGB" if options.channels == 3 else "GRAY", min_height=least, min_width=least
        )
    except UserError:
        raise
    except ValueError as error:
        # libjpeg warns. Pillow decodes the image nevertheless, unless it is incomplete.
        opened = _open(data, options, where, changes)
        changes.warned += 1
        changes.warning = changes.warning or f"{where} ({error})"
        return opened
    image = Image.fromarray(pixels if options.channels == 3 else pixels[:, :, 0])
    if options.size is not None:
        image = _fitted(image, (width, height), options.size)
    if options.exif and may_be_turned(data):
        with Image.open(io.BytesIO(data)) as whole:
            image.getexif()[_ORIENTATION] = _orientation(whole)
    return image, (width, height)


def _fitted(image: Image.Image, stored: tuple[int, int], size: int) -> Image.Image:
    """Resize the shorter side of a JPEG and cut out the middle, as ``ImageOps.fit`` does.

    The JPEG was decoded to some eighths of its stored size. Its sides were rounded up, so the last
    row and column of pixels may reach beyond the image.
    """
    eighths = min(8 * now // before for now, before in zip(image.size, stored, strict=True))
    width, height = (
        min(now, before * eighths / 8) for now, before in zip(image.size, stored, strict=True)
    )
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    box = (x, y, x + side, y + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _open(
    data: bytes, options: ImageOptions, where: str, changes: ImageChanges
) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image with Pillow. Return it with its size."""
    if data[:4] == b"\x89PNG":
        _check_png(data)
    image = Image.open(io.BytesIO(data))
    claimed = 4 * image.width * image.height
    stored = _BYTES_PER_BYTE * len(data) if image.format in _COMPACT else claimed
    check_claim(where, claimed, stored, options.max_bytes)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        changes.counts[_FRAMES] += 1
    turned = _orientation(image) if image.format == "TIFF" else 1  # Pillow turns only these itself
    sixteen_bits = _has_sixteen_bits(image, data)
    image.load()
    if sixteen_bits and not image.mode.startswith("I"):
        # Pillow has reduced it to 8 bits.
        colors = np.asarray(image.convert(image.mode.removesuffix("A")))
        changes.counts[_DARK if colors.max() < 32 else _ROUNDED] += 1
    if turned > 1 and not options.exif:
        back = image.transpose(_TURNS_BACK[turned])
        return back, back.size
    if turned > 1:
        changes.counts[_TURNED] += 1
    return image, image.size


def _has_sixteen_bits(image: Image.Image, data: bytes) -> bool:
    if isinstance(image, TiffImageFile):
        return 16 in tuple(image.tag_v2.get(BITSPERSAMPLE, ()))
    if image.format == "PPM":
        found = re.match(rb"P[36]((?:\s|#[^\n]*\n)+(\d+)){3}\s", data)
        return found is not None and int(found[2]) > 255
    return image.format == "PNG" and data[_PNG_BITS] == 16


def to_pixels(
    image: Image.Image,
    options: ImageOptions,
    where: str,
    changes: ImageChanges,
    *,
    stored_size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Convert a Pillow image of any mode to ``(height, width, channels)`` uint8.

    It is turned upright and fitted to the size in ``options``. ``stored_size`` is its size in the
    file, if it was decoded at a different size.

    Raises:
        UserError: if it has 32 bits per channel.
    """
    wide = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if options.exif and _orientation(image) > 1:
        changes.counts[_TURNED] += 1
        image = ImageOps.exif_transpose(image)
    if wide:
        sixteen = np.asarray(image).astype(np.uint32)
        changes.counts[_DARK if sixteen.max() < 1 << 13 else _ROUNDED] += 1
        eight = (sixteen * 255 + 32767) // 65535
        image = Image.fromarray(eight.astype(np.uint8))
    elif image.mode in {"I", "F"}:
        raise UserError(
            f"{where}: expected 8 or 16 bits per channel, got 32, which have no defined white "
            "level. Save the image with 8 or 16 bits."
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        if options.alpha != "ignore" and np.asarray(image)[:, :, 3].min() < 255:
            ground = Image.new("RGBA", image.size, options.alpha)
            ground.alpha_composite(image)
            image = ground
            changes.counts[_COMPOSED.format(options.alpha)] += 1
    image = image.convert("RGB" if options.channels == 3 else "L")
    if options.size is not None:
        size = (options.size, options.size)
        if (stored_size or image.size) != size:
            changes.counts[f"were resized and cropped to {options.size}x{options.size}"] += 1
        image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 if there is none or it is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # viewers ignore damaged EXIF data, which raise errors of every kind
        return 1
    return orientation if orientation in range(2, 9) else 1


def may_be_turned(jpeg: bytes) -> bool:
    """Return whether a JPEG may have an orientation; fast, since most have none.

    EXIF and XMP data are in segments APP1, which come before the tables and the pixels.
    """
    at = 2
    while (head := jpeg[at : at + 4])[:1] == b"\xff" and len(head) == 4 and head[1] >= _APP0:
        if head[1] == _APP0 + 1:
            return True
        at += 2 + (head[2] << 8 | head[3])
    return False


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

"""Decoding images: from the bytes of a file to pixels of one size and one number of channels."""

import io
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import LoadOptions, Note, OnBad, ReadResult, SkippedExamples, Split
from vicinal.data.formats.exif import (
    AS_VIEWERS,
    Looked,
    Looks,
    looks_of,
    opaque,
    orientation_of,
    turned,
    upright,
)
from vicinal.data.source_spec import channels_option, positive
from vicinal.errors import UserError

Channels = Literal[1, 3]

IMAGE_OPTIONS = ("size", "channels", "exif", "alpha")

MOST_PIXELS = 1 << 27
"""Images that claim more pixels are refused: damaged headers claim anything."""

# Deflate and JPEG's Huffman codes cannot do with less than this many bytes, so that a header which
# claims more lies; small images need not be looked at.
_PIXELS_PER_BYTE = 10_000
_SMALL = 1 << 16

_PIECE = 1 << 26  # bytes of images that are read together

_FIRST = 100  # images of a split in files that are looked at when it is loaded
_APP0 = 0xE0


class Files(Protocol):
    """Encoded images in files, by number. Has to be picklable."""

    def __len__(self) -> int:
        """Return how many there are."""

    def get(self, row: int) -> bytes:
        """Return the bytes of one image."""

    def name(self, row: int) -> str:
        """Return what an error calls it: its file, or file and record."""

    def identity(self, row: int) -> str:
        """Return what tells it from others without reading it, such as its name and size."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images that stay in files and are decoded when they are asked for.

    Args:
        files: what gives their bytes.
        shape: ``(n, channels, height, width)``.
        resized: the shorter side is brought to the size in ``shape``, the middle cut out; else
            every image has to have this size.
        raw: the bytes are pixels, ``(height, width, channels)`` uint8, and nothing else.
        on_bad: what is done about an image that cannot be decoded.
        looks: how orientation and transparency are treated.
        looked: what was changed in the images that were read, counted.
    """

    files: Files
    shape: tuple[int, ...]
    resized: bool = False
    raw: bool = False
    on_bad: OnBad = "raise"
    looks: Looks = AS_VIEWERS
    looked: Looked = field(default_factory=Looked)
    dtype: torch.dtype = field(default=torch.uint8, init=False)

    @classmethod
    def of(
        cls,
        files: Files,
        *,
        size: int | None,
        channels: Channels,
        on_bad: OnBad,
        looks: Looks = AS_VIEWERS,
    ) -> "StoredImages":
        """Look at the first image that can be decoded to see how large they are.

        Raises:
            UserError: if the first cannot be decoded and is not to be skipped, or if none can.
        """
        skips = SkippedExamples(on_bad)
        for row in range(len(files)):
            try:
                name = files.name(row)
                data = files.get(row)
                image = decode(data, channels=channels, size=size, where=name, looks=looks)
            except UserError as error:
                skips(error)
            else:
                height, width, _ = image.shape
                shape = (len(files), channels, height, width)
                return cls(files, shape, size is not None, on_bad=on_bad, looks=looks)
        raise UserError(f"none of {len(files)} images can be read; {skips.sentences[0]}")

    def identity(self, row: int) -> str:
        """Return what tells an image from others without reading it."""
        return self.files.identity(row)

    @classmethod
    def by_options(
        cls, files: Files, options: Mapping[str, str], load_options: LoadOptions, looked: Looked
    ) -> "StoredImages":
        """Do as ``of``, with the options of a data set's name; count in ``looked``."""
        first = cls.of(
            files,
            size=positive("size", options),
            channels=channels_option(options),
            on_bad=load_options.on_bad,
            looks=looks_of(options, load_options.max_bytes),
        )
        return replace(first, looked=looked)

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read and decode some images: ``(k, channels, height, width)`` uint8, contiguous."""
        from simplejpeg import decode_jpeg

        _, channels, height, width = self.shape
        size = height if self.resized else None
        pixels = np.empty((len(rows), height, width, channels), np.uint8)
        skips = SkippedExamples(self.on_bad)
        kept: list[int] = []
        for row in rows:
            try:
                data = self.files.get(row)
                if self.raw:
                    _copy_into(pixels[len(kept)], data, self.files, row)
                else:
                    out = pixels[len(kept)]
                    if size is not None or not _quickly(decode_jpeg, data, out, self.looks):
                        self._decode_into(out, data, size, row)
            except UserError as error:
                skips(error)
            else:
                kept.append(len(kept) + len(skips.sentences))
        self.looked.images += len(kept)
        # Contiguous, as a split in memory is: what comes after may depend on it in the last digit.
        inputs = torch.from_numpy(pixels[: len(kept)]).permute(0, 3, 1, 2).contiguous()
        return ReadResult(inputs, np.array(kept, np.int64), skips.sentences)

    def _decode_into(self, out: np.ndarray, data: bytes, size: int | None, row: int) -> None:
        """Decode one image into ``(height, width, channels)`` uint8, which has to fit."""
        where = self.files.name(row)
        channels: Channels = 3 if out.shape[2] == 3 else 1
        image = decode(
            data,
            channels=channels,
            size=size,
            where=where,
            looks=self.looks,
            looked=self.looked,
        )
        if image.shape != out.shape:
            raise UserError(
                f"{where}: wanted an image of {_by(out)} pixels like the first one, found "
                f"{_by(image)}; size=N in the data's name makes them all N x N"
            )
        out[...] = image


def image_split(
    stored: StoredImages, targets: Tensor, load_options: LoadOptions, skipped: Sequence[str] = ()
) -> Split:
    """Return images as a split: in memory if they fit there, else as they are stored.

    Args:
        stored: ``n`` images.
        targets: ``(n,)`` or ``(n, k)``.
        load_options: how much may be in memory.
        skipped: what has been left out already.
    """
    count = len(targets)
    if math.prod(stored.shape) > load_options.in_memory:
        return Split(stored, targets, tuple(skipped))
    inputs = torch.empty(stored.shape, dtype=torch.uint8)
    sentences = list(skipped)
    kept = []
    done = 0
    together = max(1, min(1024, _PIECE // max(1, math.prod(stored.shape[1:]))))
    for rows in torch.arange(count).split(together):
        read = stored.read(rows.tolist())
        inputs[done : done + len(read.inputs)] = read.inputs
        done += len(read.inputs)
        kept.append(rows[read.kept])
        sentences += read.skipped
    if not done:
        raise UserError(f"none of {count} images can be read; {sentences[-1]}")
    if done < count:
        inputs, targets = inputs[:done].clone(), targets[torch.cat(kept)]
    return Split(inputs, targets, tuple(sentences))


def image_notes(
    looked: Looked, splits: Iterable[Split], options: Mapping[str, str], load_options: LoadOptions
) -> tuple[Note, ...]:
    """Return what was changed in the images, or in the first ones of splits that stay in files."""
    every = True
    for split in splits:
        if isinstance(split.inputs, StoredImages):
            every = False
            first = replace(split.inputs, on_bad="skip", looked=looked)
            first.read(range(min(_FIRST, len(split))))
    looks = looks_of(options, load_options.max_bytes)
    return looked.notes(looks, positive("size", options), every=every)


def _copy_into(out: np.ndarray, data: bytes, files: Files, row: int) -> None:
    if len(data) != out.size:
        raise UserError(
            f"{files.name(row)}: wanted {out.size} bytes, a raw image of "
            f"{'x'.join(map(str, out.shape))}, found {len(data)}"
        )
    out[...] = np.frombuffer(data, np.uint8).reshape(out.shape)


def _quickly(decode_jpeg: Any, data: bytes, out: np.ndarray, looks: Looks) -> bool:
    """Decode a JPEG of the right size, by far the most frequent; say whether it was one."""
    if data[:2] != b"\xff\xd8" or (looks.exif and _may_turn(data)):
        return False
    try:
        space = "RGB" if out.shape[2] == 3 else "GRAY"
        return bool(decode_jpeg(data, space, buffer=out).shape == out.shape)
    except ValueError:
        return False  # decode tells what is the matter, or can do more


def _may_turn(data: bytes) -> bool:
    """Say whether a JPEG may hold an orientation: a quick look, since most hold none.

    EXIF and XMP data are in segments APP1, which come before the tables and the image.
    """
    at = 2
    while (head := data[at : at + 4])[:1] == b"\xff" and len(head) == 4 and head[1] >= _APP0:
        if head[1] == _APP0 + 1:
            return True
        at += 2 + (head[2] << 8 | head[3])
    return False


def decode(
    data: bytes,
    *,
    channels: Channels = 3,
    size: int | None = None,
    where: str,
    looks: Looks = AS_VIEWERS,
    looked: Looked | None = None,
) -> np.ndarray:
    """Decode an image: JPEG, PNG and whatever else Pillow reads.

    Gray images become RGB by repetition, and color images gray by luma, as ``channels`` says.
    Palettes are looked up, CMYK is converted, and 16 bits a channel are rounded to 8. Images are
    turned upright by the orientation in their EXIF data and transparent ones composed onto white,
    unless ``looks`` says otherwise. A JPEG about which libjpeg only warns is decoded.

    Args:
        data: the bytes of the file.
        channels: 3 for RGB, 1 for gray.
        size: if given, the shorter side is resized to it (bilinear), and the middle cut out.
        where: file, or file and record, for the error.
        looks: how orientation and transparency are treated.
        looked: counts what was changed.

    Returns:
        ``(height, width, channels)`` uint8.

    Raises:
        UserError: if the image is damaged, incomplete, of an unknown format, of 32 bits a
            channel, or claims more pixels than its bytes can hold or ``looks`` allows.

    Example:
        >>> import simplejpeg
        >>> gray = simplejpeg.encode_jpeg(np.full((8, 8, 1), 128, np.uint8), colorspace="GRAY")
        >>> decode(gray, where="gray.jpg").shape
        (8, 8, 3)
    """
    seen = looked or Looked()
    decoder = _decode_jpeg if data[:2] == b"\xff\xd8" else _decode_other
    try:
        image = decoder(data, channels=channels, size=size, where=where, looks=looks, looked=seen)
    except UserError:
        raise
    except Exception as error:  # decoders of foreign bytes raise what they like
        kind = _kind(data)
        reason = str(error) or type(error).__name__
        if "cannot identify" in reason:  # Pillow's words go on with an address in memory
            reason = "of no format that is known"
        raise UserError(
            f"{where}: {kind} cannot be decoded ({reason}); it is no image, or damaged or "
            "incomplete"
        ) from error
    return image[:, :, None] if image.ndim == 2 else image


def _decode_jpeg(
    data: bytes, *, channels: Channels, size: int | None, where: str, looks: Looks, looked: Looked
) -> np.ndarray:
    from PIL import Image
    from simplejpeg import decode_jpeg, decode_jpeg_header

    least = size or 0
    how: dict[str, Any] = {
        "channels": channels,
        "size": size,
        "where": where,
        "looks": looks,
        "looked": looked,
    }
    try:
        height, width, space, _ = decode_jpeg_header(data)
        _check_claim(height * width, len(data), where, looks)
        inks = space in {"CMYK", "YCCK"}
        space = "CMYK" if inks else "RGB" if channels == 3 else "GRAY"
        # The decoder halves for free, as long as something is left to resize.
        pixels: np.ndarray = decode_jpeg(data, space, min_height=least, min_width=least)
    except UserError:
        raise
    except ValueError as error:
        # libjpeg complains. Pillow decodes all the same, unless the image is incomplete.
        image = _decode_other(data, **how)
        looked.warn(f"{where} ({error})")
        return image
    if inks:  # libjpeg hands out the four inks; Pillow knows that Adobe's are upside down
        return _decode_other(data, **how)
    orientation = 1
    if looks.exif and _may_turn(data):
        with Image.open(io.BytesIO(data)) as whole:
            orientation = orientation_of(whole)
    if size is None and orientation == 1:
        return pixels
    decoded = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    if orientation > 1:
        looked.turned += 1
        decoded = turned(decoded, orientation)
        height, width = (width, height) if orientation > 4 else (height, width)
    if size is None:
        return np.asarray(decoded)
    return _fitted(decoded, size, (width, height), looked)


def _decode_other(
    data: bytes, *, channels: Channels, size: int | None, where: str, looks: Looks, looked: Looked
) -> np.ndarray:
    from PIL import Image

    if data[:4] == b"\x89PNG":
        _check_sums(data)
    with Image.open(io.BytesIO(data)) as image:
        compact = image.format in {"PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM"}
        count = image.width * image.height
        _check_claim(count, len(data) if compact else None, where, looks)
        image.load()
        mode = "RGB" if channels == 3 else "L"
        whole = upright(image, looks, looked)
        if whole.mode.startswith("I;16"):
            eight = (np.asarray(whole).astype(np.uint32) * 255 + 32767) // 65535
            converted = Image.fromarray(eight.astype(np.uint8)).convert(mode)
        elif whole.mode in {"I", "F"}:
            raise UserError(
                f"{where}: images with 32 bits a channel have no defined white level; save it with "
                "8 or 16 bits"
            )
        else:
            converted = opaque(whole, mode, looks, looked)
    if size is None:
        return np.asarray(converted)
    return _fitted(converted, size, converted.size, looked)


def _fitted(image: Any, size: int, before: tuple[int, int], looked: Looked) -> np.ndarray:
    """Return a Pillow image with the shorter side resized, the middle cut out."""
    from PIL import Image, ImageOps

    if before != (size, size):
        looked.fit(*before)
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def _check_sums(data: bytes) -> None:
    """Check the checksums of a PNG, of which Pillow passes over those of the pixels."""
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        (load_options,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(memoryview(data)[at + 4 : at + 8 + length]) != load_options:
            raise ValueError(f"wrong checksum of {kind!r} at byte {at}")
        if kind == b"IEND":
            return
        at += 12 + length
    raise ValueError("its end is missing")


def _check_claim(pixels: int, count: int | None, where: str, looks: Looks) -> None:
    most = MOST_PIXELS
    if count is not None:
        most = min(most, max(_SMALL, count * _PIXELS_PER_BYTE))
    if not 0 < pixels <= most:
        of = "" if count is None else f" of {count} bytes"
        raise UserError(f"{where}: an image{of} claims {pixels} pixels; its header is damaged")
    if 4 * pixels > looks.max_bytes:  # as many bytes as Pillow takes
        raise UserError(
            f"{where}: an image of {pixels} pixels takes {4 * pixels} bytes once it is decoded, "
            f"more than max_bytes = {looks.max_bytes}; raise max_bytes if the file is genuine"
        )


def _kind(data: bytes) -> str:
    kinds = {b"\xff\xd8": "a JPEG", b"\x89PNG": "a PNG", b"GIF8": "a GIF", b"BM": "a BMP"}
    named = [kind for start, kind in kinds.items() if data.startswith(start)]
    return named[0] if named else f"an image that begins with {data[:8].hex(' ') or 'nothing'}"


def _by(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"

"""Images that stay in files until they are read."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from simplejpeg import decode_jpeg

from vicinal.data.dataset import (
    ReadResult,
    SkippedExamples,
)
from vicinal.data.formats.images import ImageChanges, ImageOptions, decode, may_be_turned
from vicinal.errors import UserError

_FIRST = 20  # images, whose most frequent size is that of all


class ImageFiles(Protocol):
    """Encoded images in files, by number. Has to be picklable."""

    def __len__(self) -> int:
        """Return the number of images."""

    def get(self, row: int) -> bytes:
        """Return the bytes of one image."""

    def name(self, row: int) -> str:
        """Return the file, or file and record, of one image, for errors."""

    def identity(self, row: int) -> str:
        """Return the name and size of one image, to notice changes without reading it."""

    def fingerprint(self) -> str:
        """Return a hash of the names, sizes and times of change of all images."""

    def rows(self, rows: np.ndarray) -> "ImageFiles":
        """Return some of the images."""


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images that stay in files and are decoded when they are read.

    Args:
        files: the encoded images.
        shape: ``(n, channels, height, width)``.
        options: how images are decoded; without a size, all images have the size in ``shape``.
        skip_bad: whether images that cannot be decoded are skipped instead of raising an error.
        changes: counts what was changed in the images that were read.
        trained: whether ``shape`` is that of the training images; otherwise of the first ones.
    """

    files: ImageFiles
    shape: tuple[int, ...]
    options: ImageOptions = ImageOptions()  # noqa: RUF009 (immutable)
    skip_bad: bool = False
    changes: ImageChanges = field(default_factory=ImageChanges)
    trained: bool = False
    dtype: torch.dtype = field(default=torch.uint8, init=False)

    @classmethod
    def of(cls, files: ImageFiles, options: ImageOptions, skip_bad: bool) -> "StoredImages":
        """Decode the first image that can be decoded to learn the size of all.

        If bad images are skipped, it is the most frequent size of the first ones.

        Raises:
            UserError: if the first cannot be decoded and is not to be skipped, or if none can.
        """
        skipped = SkippedExamples(skip_bad)
        shapes: Counter[tuple[int, ...]] = Counter()
        for row in range(len(files)):
            try:
                shapes[_image(files, row, files.get(row), options).shape] += 1
            except UserError as error:
                skipped(error)
            if shapes.total() == (_FIRST if skip_bad else 1):
                break
        if not shapes:
            raise UserError(f"none of {len(files)} images can be read. {skipped.sentences[0]}")
        ((height, width, channels), _) = shapes.most_common(1)[0]
        return cls(files, (len(files), channels, height, width), options, skip_bad)

    def of_files(self, files: ImageFiles) -> "StoredImages":
        """Return other images, decoded in the same way and to the same size."""
        return replace(self, files=files, shape=(len(files), *self.shape[1:]))

    def identity(self, row: int) -> str:
        """Return the name and size of one image, to notice changes without reading it."""
        return self.files.identity(row)

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read and decode some images: ``(k, channels, height, width)`` uint8, contiguous."""
        _, channels, height, width = self.shape
        pixels = np.empty((len(rows), height, width, channels), np.uint8)
        skipped = SkippedExamples(self.skip_bad)
        kept: list[int] = []
        for at, row in enumerate(rows):
            try:
                self._read_into(pixels[len(kept)], row)
            except UserError as error:
                skipped(error)
            else:
                kept.append(at)
        self.changes.images += len(kept)
        # Contiguous like a split in memory, since later results depend on it in the last digit.
        inputs = torch.from_numpy(pixels[: len(kept)]).permute(0, 3, 1, 2).contiguous()
        return ReadResult(inputs, np.array(kept, np.int64), skipped.sentences)

    def _read_into(self, out: np.ndarray, row: int) -> None:
        """Read one image into ``(height, width, channels)`` uint8."""
        data = self.files.get(row)
        if _decode_jpeg_into(out, data, self.options):
            return
        image = _image(self.files, row, data, self.options, self.changes)
        if image.shape != out.shape:
            like, fix = (
                "like most of the first ones" if self.skip_bad else "like the first one",
                "Add the option size=N to the source to resize all images to N x N",
            )
            if self.trained:
                like, fix = "as in training", "Resize it"
            raise UserError(
                f"{self.files.name(row)}: expected an image of {_sides(out.shape)} {like}, got "
                f"{_sides(image.shape)}. {fix}."
            )
        out[...] = image


def _image(
    files: ImageFiles,
    row: int,
    data: bytes,
    options: ImageOptions,
    changes: ImageChanges | None = None,
) -> np.ndarray:
    """Return the pixels of an image, ``(height, width, channels)`` uint8."""
    if options.raw is None:
        return decode(data, options, where=files.name(row), changes=changes)
    if len(data) != math.prod(options.raw):
        raise UserError(
            f"{files.name(row)}: expected {math.prod(options.raw)} bytes, for raw="
            f"{_sides(options.raw)}, got {len(data)}. Check the option raw."
        )
    return np.frombuffer(data, np.uint8).reshape(options.raw)


def _sides(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _decode_jpeg_into(out: np.ndarray, data: bytes, options: ImageOptions) -> bool:
    """Decode a JPEG of the right size, by far the most frequent case, if it is one."""
    if options.size is not None or options.raw is not None or data[:2] != b"\xff\xd8":
        return False
    if options.exif and may_be_turned(data):
        return False
    try:
        space = "RGB" if out.shape[2] == 3 else "GRAY"
        return bool(decode_jpeg(data, space, buffer=out).shape == out.shape)
    except ValueError:
        return False  # decode names the error, or can do more

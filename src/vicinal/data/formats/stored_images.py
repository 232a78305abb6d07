"""Images that stay in files until they are read."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import LoadOptions, Note, ReadResult, SkippedExamples, Split
from vicinal.data.formats.exif import may_be_turned
from vicinal.data.formats.images import ImageChanges, ImageOptions, decode
from vicinal.errors import UserError

_PIECE = 1 << 26  # bytes of images that are read together
_FIRST = 100  # images of a split in files that are decoded to count changes


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


@dataclass(frozen=True, eq=False)
class StoredImages:
    """Images that stay in files and are decoded when they are read.

    Args:
        files: the encoded images.
        shape: ``(n, channels, height, width)``.
        options: how images are decoded; without a size, all images have the size in ``shape``.
        raw: whether the files have only pixels, ``(height, width, channels)`` uint8.
        skip_bad: whether images that cannot be decoded are skipped instead of raising an error.
        changes: counts what was changed in the images that were read.
    """

    files: ImageFiles
    shape: tuple[int, ...]
    options: ImageOptions = ImageOptions()  # noqa: RUF009 (immutable)
    raw: bool = False
    skip_bad: bool = False
    changes: ImageChanges = field(default_factory=ImageChanges)
    dtype: torch.dtype = field(default=torch.uint8, init=False)

    @classmethod
    def of(cls, files: ImageFiles, options: ImageOptions, skip_bad: bool) -> "StoredImages":
        """Decode the first image that can be decoded to learn the size of all.

        Raises:
            UserError: if the first cannot be decoded and is not to be skipped, or if none can.
        """
        skipped = SkippedExamples(skip_bad)
        for row in range(len(files)):
            try:
                image = decode(files.get(row), options, where=files.name(row))
            except UserError as error:
                skipped(error)
            else:
                shape = (len(files), options.channels, *image.shape[:2])
                return cls(files, shape, options, skip_bad=skip_bad)
        raise UserError(f"none of {len(files)} images can be read; {skipped.sentences[0]}")

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
        if self.raw:
            if len(data) != out.size:
                raise UserError(
                    f"{self.files.name(row)}: expected {out.size} bytes, a raw image of "
                    f"{_sides(out)}, got {len(data)}"
                )
            out[...] = np.frombuffer(data, np.uint8).reshape(out.shape)
        elif not _decode_jpeg_into(out, data, self.options):
            where = self.files.name(row)
            image = decode(data, self.options, where=where, changes=self.changes)
            if image.shape != out.shape:
                raise UserError(
                    f"{where}: expected an image of {_sides(out)} like the first one, got "
                    f"{_sides(image)}; size=N resizes all images to N x N"
                )
            out[...] = image


def _sides(image: np.ndarray) -> str:
    return "x".join(map(str, image.shape))


def _decode_jpeg_into(out: np.ndarray, data: bytes, options: ImageOptions) -> bool:
    """Decode a JPEG of the right size, by far the most frequent case, if it is one."""
    from simplejpeg import decode_jpeg

    if options.size is not None or data[:2] != b"\xff\xd8":
        return False
    if options.exif and may_be_turned(data):
        return False
    try:
        space = "RGB" if out.shape[2] == 3 else "GRAY"
        return bool(decode_jpeg(data, space, buffer=out).shape == out.shape)
    except ValueError:
        return False  # decode names the error, or can do more


def image_split(
    stored: StoredImages, targets: Tensor, load_options: LoadOptions, skipped: Sequence[str] = ()
) -> Split:
    """Return images as a split: in memory if they fit there, else as they are stored.

    Args:
        stored: ``n`` images.
        targets: ``(n,)`` or ``(n, k)``.
        load_options: how much may be in memory.
        skipped: what has been skipped already.
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


def image_notes(stored: StoredImages, splits: Iterable[Split]) -> tuple[Note, ...]:
    """Return notes on what was changed in the images of splits, or in the first ones in files."""
    all_read = True
    for split in splits:
        inputs: Any = split.inputs
        if isinstance(inputs, StoredImages):
            all_read = False
            first = replace(inputs, skip_bad=True, changes=stored.changes)
            first.read(range(min(_FIRST, len(split))))
    return stored.changes.notes(stored.options, all_read=all_read)

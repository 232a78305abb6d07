"""Rows of map-style data sets of other libraries, converted to arrays of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from vicinal.data.dataset import LoadOptions, ReadResult, SkippedExamples, Split
from vicinal.data.formats.images import ImageChanges, ImageOptions, to_pixels
from vicinal.errors import UserError
from vicinal.import_path import one_line

_GRAY = {"1", "L", "LA", "La"}


class ColorError(Exception):
    """Raised for a color image among images that were expected to be gray."""


@dataclass
class RowFormat:
    """What the rows of all splits have in common.

    Args:
        images: how images are converted.
        forced_channels: whether arrays are converted to ``images.channels`` too, and color images
            to gray.
        classes: names of the classes, None if they are not known.
    """

    images: ImageOptions
    forced_channels: bool = False
    classes: tuple[str, ...] | None = None
    # The first row that is read sets these three.
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None  # uint8 or float32
    target: tuple[int, ...] | str = "class"  # or the shape of real values
    changes: ImageChanges = field(default_factory=ImageChanges)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Inputs that are read from a map-style data set when they are needed.

    Args:
        name: name of the data set, for errors.
        source: gives ``(input, target)`` by number; has to be picklable.
        rows: ``(n,)`` which of its rows these are.
        format: their shape, dtype and kind of target, which all rows have to share.
        skip_bad: whether rows that cannot be read are skipped instead of raising an error.
    """

    name: str
    source: Any
    rows: np.ndarray
    format: RowFormat
    skip_bad: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of all inputs, ``(n, ...)``."""
        return (len(self.rows), *(self.format.shape or ()))

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of inputs, uint8 or float32."""
        return torch.uint8 if self.format.dtype == np.uint8 else torch.float32

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read some rows."""
        skipped = SkippedExamples(self.skip_bad)
        inputs = np.empty((len(rows), *self.shape[1:]), self.format.dtype)
        kept: list[int] = []
        for at, row in enumerate(rows):
            try:
                inputs[len(kept)], _ = self.read_row(int(self.rows[row]))
            except UserError as error:
                skipped(error)
            else:
                kept.append(at)
        read = torch.from_numpy(inputs[: len(kept)])
        return ReadResult(read, np.array(kept, np.int64), skipped.sentences)

    def read_row(self, row: int) -> tuple[np.ndarray, Any]:
        """Return the input and target of a row of the data set. The first one sets the format."""
        where, format = f"{self.name}, row {row}", self.format
        try:
            pair = self.source[row]
        except Exception as error:  # code of the data set
            raise UserError(f"{where}: cannot be read ({one_line(error)}).") from error
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"{where}: expected (input, target), got {_described(pair)}.")
        value = _input(pair[0], format, where)
        target, kind = _target(pair[1], format.classes, where)
        if format.shape is None:
            format.shape, format.dtype, format.target = value.shape, value.dtype, kind
        if value.shape != format.shape or value.dtype != format.dtype:
            hint = (
                " Add the option size=N to the source to resize all images to N x N."
                if format.dtype == np.uint8
                else ""
            )
            raise UserError(
                f"{where}: expected shape {format.shape} {format.dtype} like the first row, got "
                f"{value.shape} {value.dtype}.{hint}"
            )
        if kind != format.target:
            raise UserError(
                f"{where}: expected {_kind(format.target)} as target like the first row, got "
                f"{_kind(kind)}."
            )
        return value, target


def is_map_style(found: object) -> bool:
    """Return whether an object has ``len(d)`` and ``d[row]``."""
    return hasattr(found, "__len__") and hasattr(found, "__getitem__")


def read_split(name: str, source: Any, format: RowFormat, load_options: LoadOptions) -> Split:
    """Read every row once: its target, and its input if all of them fit into memory.

    The first row sets the format, unless another split has set it.

    Raises:
        UserError: if this is not a map-style data set; if a row raises an error or differs from
            the first one, and is not to be skipped; if no row is left.
        ColorError: if an image has colors where ``format`` is gray.

    Example:
        >>> from pathlib import Path
        >>> rows = [(np.full((2, 2), 7, np.uint8), 1), (np.zeros((2, 2), np.uint8), 0)]
        >>> format = RowFormat(ImageOptions(channels=1))
        >>> split = read_split("two", rows, format, LoadOptions(Path()))
        >>> split.inputs.shape, split.targets.tolist(), format.target
        (torch.Size([2, 1, 2, 2]), [1, 0], 'class')
    """
    if not is_map_style(source):
        raise UserError(
            f"{name}: expected a data set with len(d) and d[row], got a {type(source).__name__}."
        )
    count = len(source)
    stored = StoredRows(name, source, np.arange(count), format, load_options.skip_bad)
    skipped = SkippedExamples(load_options.skip_bad)
    rows: list[int] = []
    targets = []
    inputs: np.ndarray | None = None
    for row in range(count):
        try:
            value, target = stored.read_row(row)
        except UserError as error:
            skipped(error)
            continue
        if not rows and count * value.nbytes <= load_options.in_memory:
            inputs = np.empty((count, *value.shape), value.dtype)
        if inputs is not None:
            inputs[len(rows)] = value
        rows.append(row)
        targets.append(target)
    if not rows:
        raise UserError(
            f"{name}: none of {count} rows can be read. {''.join(skipped.sentences[:1])}"
        )
    found = torch.from_numpy(
        np.array(targets, np.int64 if format.target == "class" else np.float32)
    )
    if inputs is None:
        return Split(replace(stored, rows=np.array(rows)), found, tuple(skipped.sentences))
    if len(rows) < count:
        inputs = inputs[: len(rows)].copy()
    return Split(torch.from_numpy(inputs), found, tuple(skipped.sentences))


def _kind(kind: tuple[int, ...] | str) -> str:
    if kind == "class":
        return "a class"
    return f"{kind[0]} real values" if kind else "a real value"


def _described(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _array(value: Any, where: str) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{where}: expected numbers, got {_described(value)} ({error}).") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: expected an image or numbers, got {_described(value)}.")
    return array


def _input(value: Any, format: RowFormat, where: str) -> np.ndarray:
    """Return an image ``(channels, height, width)`` uint8, or numbers, float32."""
    options = format.images
    if isinstance(value, Image.Image):
        mode = value.mode
        colored = mode not in {*_GRAY, "I", "F"} and not mode.startswith("I;16")
        if colored and options.channels == 1 and not format.forced_channels:
            raise ColorError
        return _pixels(value, options, format, where)
    array = _array(value, where)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        if array.ndim == 3 and not isinstance(value, torch.Tensor) and array.shape[2] in (1, 3):
            array = array.transpose(2, 0, 1)
        array = array if array.ndim == 3 else array[None]
        if len(array) not in (1, 3):
            raise UserError(
                f"{where}: expected an image of 1 or 3 channels, got {_described(value)}."
            )
        if not format.forced_channels:
            options = options._replace(channels=len(array))
        if options.size is None and options.channels == len(array):
            return array
        image = Image.fromarray(np.moveaxis(array, 0, 2) if len(array) == 3 else array[0])
        return _pixels(image, options, format, where)
    if options.size is not None:
        raise UserError(f"{where}: expected a uint8 image for size=, got {_described(value)}.")
    if array.dtype.kind != "f" and (array.ndim > 1 or (np.abs(array.astype(float)) > 2**24).any()):
        raise UserError(
            f"{where}: expected an image (uint8) or numbers that float32 holds, got {array.dtype} "
            f"of shape {array.shape}. Give floating-point numbers."
        )
    with np.errstate(over="ignore"):
        numbers = np.atleast_1d(array.astype(np.float32))
    if not np.isfinite(numbers).all():
        wrong = array[~np.isfinite(numbers).reshape(array.shape)].flat[0]
        raise UserError(f"{where}: expected finite numbers that float32 holds, got {wrong}.")
    return numbers


def _pixels(image: Image.Image, options: ImageOptions, format: RowFormat, where: str) -> np.ndarray:
    try:
        pixels = to_pixels(image, options, where, format.changes)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads files late
        raise UserError(f"{where}: the image cannot be decoded ({one_line(error)}).") from error
    format.changes.images += 1
    return pixels.transpose(2, 0, 1)


def _target(
    value: Any, classes: tuple[str, ...] | None, where: str
) -> tuple[Any, tuple[int, ...] | str]:
    """Return a target and its kind: ``"class"``, or the shape of real values."""
    if value is None:
        raise UserError(f"{where}: expected a target, got None.")
    array = _array(value, f"{where}, target")
    if array.dtype.kind != "f" and array.shape in {(), (1,)}:
        target = array.item()
        if target < 0:
            raise UserError(
                f"{where}: expected a label of 0 or more, got {target}, which often marks an "
                "example whose label is not published."
            )
        if classes is not None and target >= len(classes):
            raise UserError(
                f"{where}: expected one of the {len(classes)} classes "
                f"({', '.join(classes[:20])}), got class {target}."
            )
        return int(target), "class"
    if array.ndim > 1 or array.dtype.kind != "f":
        raise UserError(
            f"{where}: expected a target that is a class or real values, got {_described(value)}."
        )
    if not np.isfinite(array).all():
        raise UserError(f"{where}: expected a target of finite numbers, got {array}.")
    return array.astype(np.float32), array.shape

"""Rows of map-style data sets of other libraries, converted to arrays of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from vicinal.data.dataset import LoadOptions, ReadResult, SkippedExamples, Split
from vicinal.data.formats.images import ImageChanges, ImageOptions, fit, to_pixels
from vicinal.errors import UserError
from vicinal.import_path import one_line

_GRAY = {"1", "L", "LA", "La"}


@dataclass(frozen=True)
class RowFormat:
    """What the rows of a data set have in common.

    Args:
        images: how images are converted.
        forced_channels: whether arrays are converted to ``images.channels`` too, and color images
            to gray.
        shape: of each input; None until the first one was read.
        dtype: of inputs, uint8 or float32.
        target: ``"class"``, or the shape of real values.
        changes: counts what was changed in images.
    """

    images: ImageOptions
    forced_channels: bool = False
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    target: tuple[int, ...] | str | None = None
    changes: ImageChanges = field(default_factory=ImageChanges, compare=False)


class ColorError(Exception):
    """An image has colors where all were expected to be gray."""


class NamedDataset(NamedTuple):
    """A map-style data set, and its name for errors."""

    name: str
    dataset: Any


@dataclass(frozen=True, eq=False)
class StoredRows:
    """Inputs that are read from a map-style data set when they are needed.

    Args:
        source: gives ``(input, target)`` by number; has to be picklable.
        rows: ``(n,)`` which of its rows these are.
        format: what they have in common.
        skip_bad: whether rows that cannot be read are skipped instead of raising an error.
    """

    source: NamedDataset
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
                inputs[len(kept)] = _read_row(self.source, int(self.rows[row]), self.format)[0]
            except UserError as error:
                skipped(error)
            else:
                kept.append(at)
        read = torch.from_numpy(inputs[: len(kept)])
        return ReadResult(read, np.array(kept, np.int64), skipped.sentences)


def is_map_style(found: object) -> bool:
    """Return whether an object has ``len(d)`` and ``d[row]``."""
    return hasattr(found, "__len__") and hasattr(found, "__getitem__")


def read_split(
    source: NamedDataset, format: RowFormat, load_options: LoadOptions
) -> tuple[Split, RowFormat]:
    """Read every row once: its target, and its input if all of them fit into memory.

    Args:
        source: gives ``(input, target)`` by number.
        format: what is known of the rows already, from other splits.
        load_options: how much may be in memory, and whether bad rows are skipped.

    Returns:
        The split, and the format of its rows.

    Raises:
        UserError: if this is not a map-style data set; if a row raises an error or differs from
            the first one, and is not to be skipped; if no row is left.
        ColorError: if an image has colors where ``format`` is gray.

    Example:
        >>> from pathlib import Path
        >>> rows = [(np.full((2, 2), 7, np.uint8), 1), (np.zeros((2, 2), np.uint8), 0)]
        >>> options = ImageOptions(channels=1), LoadOptions(Path())
        >>> split, format = read_split(NamedDataset("two", rows), RowFormat(options[0]), options[1])
        >>> split.inputs.shape, split.targets.tolist(), format.target
        (torch.Size([2, 1, 2, 2]), [1, 0], 'class')
    """
    name, dataset = source
    if not is_map_style(dataset):
        raise UserError(
            f"{name}: expected a data set with len(d) and d[row], got a {type(dataset).__name__}"
        )
    count = len(dataset)
    skipped = SkippedExamples(load_options.skip_bad)
    rows: list[int] = []
    targets = []
    inputs: np.ndarray | None = None
    for row in range(count):
        try:
            value, target, format = _read_row(source, row, format)
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
        first = f"; {skipped.sentences[0]}" if skipped.sentences else ""
        raise UserError(f"{name}: none of {count} rows can be read{first}")
    dtype = np.int64 if format.target == "class" else np.float32
    stacked = torch.from_numpy(np.array(targets, dtype))
    if inputs is None:
        stored = StoredRows(source, np.array(rows, np.int64), format, load_options.skip_bad)
        return Split(stored, stacked, tuple(skipped.sentences)), format
    if len(rows) < count:
        inputs = inputs[: len(rows)].copy()
    return Split(torch.from_numpy(inputs), stacked, tuple(skipped.sentences)), format


def _read_row(
    source: NamedDataset, row: int, format: RowFormat
) -> tuple[np.ndarray, Any, RowFormat]:
    """Return the input and target of a row, and the format, which the first row fixes."""
    where = f"{source.name}, row {row}"
    try:
        pair = source.dataset[row]
    except Exception as error:  # code of the data set
        raise UserError(f"{where}: cannot be read ({one_line(error)})") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(f"{where}: expected (input, target), got {_described(pair)}")
    value = _input(pair[0], format, where)
    target, kind = _target(pair[1], where)
    if format.shape is None:
        return value, target, replace(format, shape=value.shape, dtype=value.dtype, target=kind)
    if value.shape != format.shape or value.dtype != format.dtype:
        hint = "; size=N resizes all images to N x N" if format.dtype == np.uint8 else ""
        raise UserError(
            f"{where}: expected shape {format.shape} {format.dtype} like the first row, got "
            f"{value.shape} {value.dtype}{hint}"
        )
    if kind != format.target:
        raise UserError(
            f"{where}: expected {_kind(format.target)} as target like the first row, got "
            f"{_kind(kind)}"
        )
    return value, target, format


def _kind(kind: tuple[int, ...] | str | None) -> str:
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
        raise UserError(f"{where}: expected numbers, got {_described(value)} ({error})") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: expected an image or numbers, got {_described(value)}")
    return array


def _input(value: Any, format: RowFormat, where: str) -> np.ndarray:
    from PIL import Image

    if isinstance(value, Image.Image):
        return _image(value, format, where)
    array = _array(value, where)
    options = format.images
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        if array.ndim == 2:
            array = array[:, :, None]
        elif isinstance(value, torch.Tensor) or array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.shape[2] not in (1, 3):
            raise UserError(
                f"{where}: expected an image of 1 or 3 channels, got {_described(value)}"
            )
        convert = format.forced_channels and array.shape[2] != options.channels
        if options.size is not None or convert:
            image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
            if convert:
                image = image.convert("RGB" if options.channels == 3 else "L")
            format.changes.images += 1
            array = fit(image, options.size, format.changes)
        return array.transpose(2, 0, 1)
    if options.size is not None:
        raise UserError(f"{where}: expected a uint8 image for size=, got {_described(value)}")
    if array.dtype.kind != "f" and (array.ndim > 1 or (np.abs(array.astype(float)) > 2**24).any()):
        raise UserError(
            f"{where}: expected an image (uint8) or numbers that float32 holds, got {array.dtype} "
            f"of shape {array.shape}; give floating-point numbers"
        )
    return np.atleast_1d(array.astype(np.float32))


def _image(image: Any, format: RowFormat, where: str) -> np.ndarray:
    mode = image.mode
    colored = mode not in {*_GRAY, "I", "F"} and not mode.startswith("I;16")
    if format.images.channels == 1 and not format.forced_channels and colored:
        raise ColorError
    try:
        pixels = to_pixels(image, format.images, where, format.changes)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads files late
        raise UserError(f"{where}: the image cannot be decoded ({one_line(error)})") from error
    format.changes.images += 1
    return pixels.transpose(2, 0, 1)


def _target(value: Any, where: str) -> tuple[Any, tuple[int, ...] | str]:
    """Return a target and its kind: ``"class"``, or the shape of real values."""
    if value is None:
        raise UserError(f"{where}: expected a target, got None")
    array = _array(value, f"{where}, target")
    if array.ndim == 1 and array.dtype.kind != "f" and len(array) == 1:
        array = array[0]
    if array.ndim == 0 and array.dtype.kind != "f":
        if array < 0:
            raise UserError(
                f"{where}: expected a class from 0, got {int(array)}, which often stands for a "
                "secret label"
            )
        return int(array), "class"
    if array.ndim > 1 or array.dtype.kind != "f":
        raise UserError(
            f"{where}: expected a class or real values as target, got {_described(value)}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{where}: expected finite numbers as target, got {array}")
    return array.astype(np.float32), array.shape

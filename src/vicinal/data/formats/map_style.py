"""Rows of map-style data sets that others wrote, as arrays that are all alike."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from vicinal.data.dataset import LoadOptions, OnBad, ReadResult, SkippedExamples, Split
from vicinal.data.formats.exif import AS_VIEWERS, Looked, Looks, opaque, upright
from vicinal.errors import UserError

_GRAY = {"1", "L", "LA", "La"}
_MODES: dict[int | None, str] = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Form:
    """What the examples of a set have in common.

    Args:
        size: images are made ``(size, size)``, if it is given.
        gray: images have one channel, else three.
        shape: of each input; None until the first one was read.
        dtype: of inputs, uint8 or float32.
        target: ``"class"``, or the shape of real values.
        forced: channels to convert images to; None where ``gray`` is a guess that may fail.
        looks: how the orientation and transparency of images are treated.
        looked: counts what was changed in images.
    """

    size: int | None
    gray: bool
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    target: tuple[int, ...] | str | None = None
    forced: int | None = None
    looks: Looks = AS_VIEWERS
    looked: Looked = field(default_factory=Looked, compare=False)


class ColorError(Exception):
    """A image has colors where all were taken to be gray."""


@dataclass(frozen=True, eq=False)
class StoredItems:
    """Inputs that a map-style data set gives when it is asked for them.

    Args:
        dataset: gives ``(input, target)`` by number; has to be picklable.
        name: what an error calls it.
        rows: ``(n,)`` which of its rows these are.
        form: what all have in common.
        on_bad: what is done about a row that cannot be read.
    """

    dataset: Any
    name: str
    rows: np.ndarray
    form: Form
    on_bad: OnBad

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them: ``(n, ...)``."""
        return (len(self.rows), *(self.form.shape or ()))

    @property
    def dtype(self) -> torch.dtype:
        """Of what is read: uint8 or float32."""
        return torch.uint8 if self.form.dtype == np.uint8 else torch.float32

    def read(self, rows: Sequence[int]) -> ReadResult:
        """Read some rows."""
        skips = SkippedExamples(self.on_bad)
        inputs = np.empty((len(rows), *self.shape[1:]), self.form.dtype)
        kept: list[int] = []
        for at, row in enumerate(rows):
            try:
                value, _, _ = _example(self.dataset, int(self.rows[row]), self.name, self.form)
            except UserError as error:
                skips(error)
            else:
                inputs[len(kept)] = value
                kept.append(at)
        read = torch.from_numpy(inputs[: len(kept)])
        return ReadResult(read, np.array(kept, np.int64), skips.sentences)


class Named(NamedTuple):
    """A map-style data set, and what an error calls it."""

    name: str
    dataset: Any


def map_style(found: object) -> bool:
    """Return whether something has ``len(d)`` and ``d[row]``."""
    return hasattr(found, "__len__") and hasattr(found, "__getitem__")


def said(error: BaseException) -> str:
    """Return in one line what somebody else's error says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def read_split(named: Named, form: Form, load_options: LoadOptions) -> tuple[Split, Form]:
    """Read every row once: its target, and its input if all of them fit into memory.

    Args:
        named: gives ``(input, target)`` by number.
        form: what is known of the rows already, from other splits.
        load_options: how much may be in memory, and what is done about a bad row.

    Returns:
        The split, and the form of its rows.

    Raises:
        UserError: if this is no map-style data set; if a row raises anything, or differs from the
            first one, and is not to be skipped; if no row is left.
        ColorError: if an image has colors where ``form`` is gray.

    Example:
        >>> from pathlib import Path
        >>> rows = [(np.full((2, 2), 7, np.uint8), 1), (np.zeros((2, 2), np.uint8), 0)]
        >>> split, form = read_split(Named("two", rows), Form(None, gray=True), LoadOptions(Path()))
        >>> split.inputs.shape, split.targets.tolist(), form.target
        (torch.Size([2, 1, 2, 2]), [1, 0], 'class')
    """
    name, dataset = named
    if not map_style(dataset):
        raise UserError(
            f"{name} is a {type(dataset).__name__}; wanted a data set with len(d) and d[row]"
        )
    count = len(dataset)
    skips = SkippedExamples(load_options.on_bad)
    rows: list[int] = []
    targets = []
    inputs: np.ndarray | None = None
    for row in range(count):
        try:
            value, target, form = _example(dataset, row, name, form)
        except UserError as error:
            skips(error)
            continue
        if not rows and count * value.nbytes <= load_options.in_memory:
            inputs = np.empty((count, *value.shape), value.dtype)
        if inputs is not None:
            inputs[len(rows)] = value
        rows.append(row)
        targets.append(target)
    if not rows:
        raise UserError(f"{name}: none of {count} rows can be used{_first(skips)}")
    given = torch.from_numpy(np.array(targets, np.int64 if form.target == "class" else np.float32))
    if inputs is None:
        stored = StoredItems(dataset, name, np.array(rows, np.int64), form, load_options.on_bad)
        return Split(stored, given, tuple(skips.sentences)), form
    if len(rows) < count:
        inputs = inputs[: len(rows)].copy()
    return Split(torch.from_numpy(inputs), given, tuple(skips.sentences)), form


def _first(skips: SkippedExamples) -> str:
    return f"; {skips.sentences[0]}" if skips.sentences else ""


def _example(dataset: Any, row: int, name: str, form: Form) -> tuple[np.ndarray, Any, Form]:
    """Return one row's input and target, and the form that it has too, or fixes if it is first.

    Raises:
        UserError: if there is anything the matter with it.
        ColorError: if it has colors and ``form`` is gray.
    """
    where = f"{name}, row {row}"
    try:
        pair = dataset[row]
    except Exception as error:  # somebody else's code
        raise UserError(f"{where}: cannot be read ({said(error)})") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise UserError(f"{where}: wanted (input, target), found {_what(pair)}")
    value = _input(pair[0], form, where)
    target, kind = _target(pair[1], where)
    if form.shape is None:
        return value, target, replace(form, shape=value.shape, dtype=value.dtype, target=kind)
    if value.shape != form.shape or value.dtype != form.dtype:
        mend = "; size=N makes all images N x N" if form.dtype == np.uint8 else ""
        raise UserError(
            f"{where}: its shape is {value.shape} {value.dtype}, the first one's {form.shape} "
            f"{form.dtype}; all have to be alike{mend}"
        )
    if kind != form.target:
        raise UserError(
            f"{where}: its target is {_kind(kind)}, the first one's {_kind(form.target)}"
        )
    return value, target, form


def _kind(kind: tuple[int, ...] | str | None) -> str:
    if kind == "class":
        return "a class"
    return f"{kind[0]} real values" if kind else "a real value"


def _what(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")


def _array(value: Any, where: str) -> np.ndarray:
    """Return numbers as an array."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{where}: {_what(value)} is no array ({error})") from error
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: wanted an image or numbers, found {_what(value)}")
    return array


def _input(value: Any, form: Form, where: str) -> np.ndarray:
    from PIL import Image

    if isinstance(value, Image.Image):
        return _image(value, form, where)
    array = _array(value, where)
    if array.dtype == np.uint8 and array.ndim in (2, 3):
        if array.ndim == 2:
            array = array[:, :, None]
        elif isinstance(value, torch.Tensor) or array.shape[2] not in (1, 3):
            array = array.transpose(1, 2, 0)
        if array.shape[2] not in (1, 3):
            raise UserError(f"{where}: images have 1 or 3 channels, found {_what(value)}")
        if form.size is not None or form.forced not in {None, array.shape[2]}:
            image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
            array = _fit(image.convert(_MODES.get(form.forced, image.mode)), form)
        return array.transpose(2, 0, 1)
    if form.size is not None:
        raise UserError(f"{where}: size= is for images of 8 bits, found {_what(value)}")
    if array.dtype.kind != "f" and (array.ndim > 1 or (np.abs(array.astype(float)) > 2**24).any()):
        raise UserError(
            f"{where}: {array.dtype} of shape {array.shape} is neither an image (uint8) nor "
            "numbers that float32 holds; give floating-point numbers"
        )
    return np.atleast_1d(array.astype(np.float32))


def _image(image: Any, form: Form, where: str) -> np.ndarray:
    from PIL import Image

    try:
        image = upright(image, form.looks, form.looked)
        if image.mode.startswith("I;16"):
            eight = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
            image = Image.fromarray(eight.astype(np.uint8))
        elif image.mode in {"I", "F"}:
            raise UserError(f"{where}: images with 32 bits a channel have no defined white level")
        if form.gray and form.forced is None and image.mode not in _GRAY:
            raise ColorError
        mode = "L" if form.gray else "RGB"
        array = _fit(opaque(image, mode, form.looks, form.looked), form)
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reads files late
        raise UserError(f"{where}: the image cannot be decoded ({said(error)})") from error
    return array.transpose(2, 0, 1)


def _fit(image: Any, form: Form) -> np.ndarray:
    """Return ``(height, width, channels)``: the shorter side resized, the middle cut out."""
    from PIL import Image, ImageOps

    form.looked.images += 1
    if form.size is not None:
        if image.size != (form.size, form.size):
            form.looked.fit(*image.size)
        image = ImageOps.fit(image, (form.size, form.size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[:, :, None] if array.ndim == 2 else array


def _target(value: Any, where: str) -> tuple[Any, tuple[int, ...] | str]:
    """Return a target and its kind: ``"class"``, or the shape of real values."""
    if value is None:
        raise UserError(f"{where}: has no target")
    array = _array(value, f"{where}, target")
    if array.ndim == 1 and array.dtype.kind != "f" and len(array) == 1:
        array = array[0]
    if array.ndim == 0 and array.dtype.kind != "f":
        if array < 0:
            raise UserError(
                f"{where}: its class is {int(array)}, as where labels are kept secret; wanted "
                "classes from 0"
            )
        return int(array), "class"
    if array.ndim > 1 or array.dtype.kind != "f":
        raise UserError(f"{where}: wanted a class or real values as target, found {_what(value)}")
    if not np.isfinite(array).all():
        raise UserError(f"{where}: its target is {array}")
    return array.astype(np.float32), array.shape

"""Examples without targets, such as files and images, prepared as those of a training."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vicinal.data.catalog import MAX_BYTES
from vicinal.data.dataset import Note, SkippedExamples, StoredInputs
from vicinal.data.formats.file_listing import (
    KIND_OF,
    files_below,
    litter_notes,
    other_kinds_notes,
    without_other_kinds,
)
from vicinal.data.formats.image_folder import FilesBelow
from vicinal.data.formats.images import ImageChanges, ImageOptions, image_options, to_pixels
from vicinal.data.formats.npz import read_npy
from vicinal.data.formats.stored_images import StoredImages
from vicinal.data.sound.load_commands import Sound, StoredRecordings, check_sound, feature_shape
from vicinal.data.tables.assemble import known_preparation
from vicinal.data.tables.columns import TablePreparation
from vicinal.data.tables.new_rows import prepare_rows, read_new_rows, table_of_rows
from vicinal.data.tables.table import Table
from vicinal.data.texts.load_texts import TextPreparation, prepare_text_rows, prepare_texts
from vicinal.errors import UserError

TOGETHER = 1024
"""Up to this number, files are read into memory at once, and otherwise when they are needed."""

_FIRST = 100  # of many files, which are read when they are needed, this many are read for notes

_FILES_OF = {"image": "image", "sound": "recording", "table": "table", "text": "table"}
"""The kind of the files that a network reads, by the kind of its examples."""


class RawExamples(NamedTuple):
    """Examples without targets.

    Args:
        inputs: ``(n, ...)``, as the inputs of a ``Split``.
        places: where each comes from: its ``file``, its ``row``, or both.
        notes: what was guessed or changed.
        skipped: a sentence for each example that was skipped because it cannot be read.
    """

    inputs: Tensor | StoredInputs
    places: Sequence[Mapping[str, Any]]
    notes: tuple[Note, ...] = ()
    skipped: tuple[str, ...] = ()


class Reading(NamedTuple):
    """How raw examples are read.

    Args:
        preparation: that of the training; see ``vicinal.data.DataSet``.
        shape: shape of one input, where the preparation does not determine it.
        skip_bad: whether examples that cannot be read are skipped instead of raising an error.
        max_bytes: the most bytes that one file may take once it is decoded.
    """

    preparation: Mapping[str, Any]
    shape: tuple[int, ...]
    skip_bad: bool = False
    max_bytes: int = MAX_BYTES

    @property
    def kind(self) -> str:
        """Return the kind of examples: image, sound, table, text or values."""
        return str(self.preparation.get("kind"))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of one input before it is cropped."""
        if self.kind == "sound":
            return feature_shape(_sound(self.preparation))
        return tuple(self.preparation.get("shape") or self.shape)


def raw_examples(given: Any, reading: Reading) -> Iterator[RawExamples]:
    """Yield examples that are prepared as those of a training.

    Args:
        given: paths of files and of folders of files: images, recordings, or tables; or, all of one
            kind, Pillow images; arrays ``(height, width)`` or ``(height, width, channels)`` of
            uint8 pixels; rows of a table as dictionaries; texts, if the training was on texts
            (there, only ``Path`` objects are paths). Also a single one of them; a frame; and
            a tensor or an array ``(n, ...)`` of inputs like those of the training data, such as
            images ``(n, channels, height, width)``.
        reading: how they are prepared.

    Yields:
        All examples at once, or those of each table.

    Raises:
        UserError: if examples are of another kind than those of the training, or cannot be read
            and are not to be skipped.
    """
    if isinstance(given, str | os.PathLike | Image.Image | Mapping):
        given = [given]
    if isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype.kind in "OUT":  # texts
        given = given.tolist()
    if isinstance(given, Tensor | np.ndarray):
        if reading.kind == "table":
            raise UserError(
                "expected a frame, or a list of dictionaries with names of columns, got an array "
                f"of shape {tuple(given.shape)}. Pass a frame, such as pandas.DataFrame(array, "
                "columns=[...])."
            )
        yield _inputs(torch.as_tensor(given), reading)
    elif hasattr(given, "columns"):
        yield _rows(_in_memory(given, reading), {}, reading)
    elif not isinstance(given, Sequence) or not given:
        got = "none" if isinstance(given, Sequence) else f"a {type(given).__name__}"
        raise UserError(
            f"expected examples: paths, images, arrays, dictionaries or a frame, got {got}."
        )
    elif reading.kind == "text" and all(isinstance(one, str) for one in given):
        places = [{"row": k} for k in range(len(given))]
        yield RawExamples(prepare_texts(given, reading.preparation), places)
    elif all(isinstance(one, str | os.PathLike) for one in given):
        yield from _files([Path(one) for one in given], reading)
    elif all(isinstance(one, Mapping) for one in given):
        yield _rows(_in_memory(given, reading), {}, reading)
    elif all(isinstance(one, Image.Image | np.ndarray) for one in given):
        yield _images(given, reading)
    else:
        names = sorted({type(one).__name__ for one in given})
        raise UserError(
            "expected examples of one kind (paths, Pillow images, NumPy arrays or dictionaries), "
            f"got {', '.join(names)}."
        )


def _files(paths: Sequence[Path], reading: Reading) -> Iterator[RawExamples]:
    files, notes = _listed(paths, reading.kind)
    _check_kind(files, reading.kind)
    places = [{"file": str(path)} for path in files]
    if reading.kind in ("table", "text"):
        skips = SkippedExamples(reading.skip_bad)
        for path, place in zip(files, places, strict=True):
            try:
                columns, label, options = _columns(reading)
                table = read_new_rows(path, columns, label, **options, max_bytes=reading.max_bytes)
            except UserError as error:
                skips(error)
            else:
                found = _rows(table, place, reading)
                yield found._replace(
                    notes=(*notes, *found.notes), skipped=(*skips.sentences, *found.skipped)
                )
                skips.sentences, notes = [], []
        if skips.sentences:
            yield RawExamples(torch.empty(0, *reading.input_shape), [], (), tuple(skips.sentences))
        return
    arrays = [path for path in files if path.suffix.lower() == ".npy"]
    if arrays and len(arrays) == len(files):
        yield from _arrays(files, reading, notes)
        return
    if arrays and reading.kind in ("image", "sound"):
        raise UserError(
            f"{arrays[0]}: expected .npy files alone, got other files too. Predict them apart."
        )
    names, shape = [str(path) for path in files], (len(files), *reading.input_shape)
    if reading.kind == "image":
        _check_white(reading)
        images = StoredImages(
            FilesBelow(Path(), np.array(names)),
            shape,
            _image_options(reading),
            reading.skip_bad,
            trained=True,
        )
        found = _read_or_stored(images, places)
        changes = images.changes.notes(all_read=len(files) <= TOGETHER)
    elif reading.kind == "sound":
        sound = _sound(reading.preparation)
        stored = StoredRecordings(
            Path(), tuple(names), shape, sound, reading.skip_bad, reading.max_bytes
        )
        found = _read_or_stored(stored, places)
        every = len(files) <= TOGETHER
        changes = stored.counts.notes(sound.rate, sound.seconds, every=every)
    else:
        other = next(path for path in files if path not in arrays)
        raise UserError(
            f"{other}: the network was trained on arrays of shape {reading.input_shape}, which "
            "are only read from .npy files. Save them as one array, or choose the data with --data."
        )
    yield found._replace(notes=(*notes, *changes))


def _check_kind(files: Sequence[Path], kind: str) -> None:
    """Raise an error if all files are of another kind than those of the training."""
    wanted = _FILES_OF.get(kind)
    found = {KIND_OF.get(path.suffix.lower()) for path in files}
    if wanted and found <= {*_FILES_OF.values()} - {wanted} and files[0].exists():
        got = {"image": "an image", "recording": "a recording", "table": "a table"}
        raise UserError(
            f"{files[0]}: the network was trained on {wanted}s, got "
            f"{got[KIND_OF[files[0].suffix.lower()]]}. Check the paths of network and files."
        )


def _arrays(
    files: Sequence[Path], reading: Reading, notes: Sequence[Note]
) -> Iterator[RawExamples]:
    """Read the inputs in ``.npy`` files."""
    skips = SkippedExamples(reading.skip_bad)
    for path in files:
        try:
            inputs = read_npy(path, images=reading.kind == "image", max_bytes=reading.max_bytes)
            found = _inputs(inputs, reading, f"{path}: ")
        except UserError as error:
            skips(error)
            continue
        places = [{"file": str(path), **place} for place in found.places]
        yield RawExamples(found.inputs, places, tuple(notes), tuple(skips.sentences))
        skips.sentences, notes = [], ()
    if skips.sentences:
        nothing = torch.empty(0, *reading.input_shape)
        yield RawExamples(nothing, [], tuple(notes), tuple(skips.sentences))


def _sound(preparation: Mapping[str, Any]) -> Sound:
    """Return the preparation of recordings, which may come from anyone's checkpoint."""
    sound = Sound(*(preparation[name] for name in Sound._fields))
    check_sound(sound)
    return sound


def _read_or_stored(
    stored: StoredImages | StoredRecordings, places: Sequence[Mapping[str, Any]]
) -> RawExamples:
    """Read a few files at once; of many, the first ones for notes."""
    if len(places) > TOGETHER:
        replace(stored, skip_bad=True).read(range(min(_FIRST, len(places))))
        return RawExamples(stored, places)
    read = stored.read(range(len(places)))
    kept = [places[k] for k in read.kept.tolist()]
    return RawExamples(read.inputs, kept, skipped=tuple(read.skipped))


def _listed(paths: Sequence[Path], kind: str) -> tuple[list[Path], list[Note]]:
    """Return files, and those in folders in order of their names, without hidden ones.

    In folders, files of another kind are left out, such as a text beside images.
    """
    files: list[Path] = []
    others: list[str] = []
    litter: Counter[str] = Counter()
    for path in paths:
        if not path.is_dir():
            files.append(path)  # reading it raises an error if it does not exist
            continue
        found = files_below(path, ".", litter)
        if not found:
            raise UserError(f"{path}: expected a folder of files, got no files in it.")
        found = [os.path.normpath(name) for name in found]
        if kind in ("image", "sound"):
            (fitting,), more = without_other_kinds([found], _FILES_OF[kind])
            found, others = fitting or found, others + more * bool(fitting)
        files += [path / name for name in found]
    notes = other_kinds_notes(others, _FILES_OF[kind], "the folders") if others else []
    return files, [*litter_notes(litter), *notes]


def _columns(reading: Reading) -> tuple[list[str], str, dict[str, Any]]:
    """Return the columns of the training table that become inputs, its label, and its format."""
    if reading.kind == "text":
        text = TextPreparation.model_validate(reading.preparation)
        return [text.text], text.label, {"header": text.header}
    table = known_preparation(reading.preparation, "the examples", TablePreparation)
    assert table is not None
    columns = [*table.numbers.columns, *table.categories.columns]
    return columns, table.label, {"header": table.header, "decimal": table.decimal}


def _in_memory(given: Any, reading: Reading) -> Table:
    columns, _, options = _columns(reading)
    return table_of_rows(given, columns, decimal=options.get("decimal", "."))


def _rows(table: Table, place: Mapping[str, Any], reading: Reading) -> RawExamples:
    if reading.kind == "text":
        found = prepare_text_rows(table, reading.preparation, skip_bad=reading.skip_bad)
    else:
        given = known_preparation(reading.preparation, table.file, TablePreparation)
        assert given is not None
        found = prepare_rows(table, given, skip_bad=reading.skip_bad)
    places = [{**place, "row": row} for row in found.rows.tolist()]
    return RawExamples(found.inputs, places, found.notes, found.skipped)


def _inputs(inputs: Tensor, reading: Reading, where: str = "") -> RawExamples:
    """Check inputs that are like those of the training data, such as pixels."""
    shape = reading.input_shape
    if tuple(inputs.shape[1:]) != shape or not len(inputs):
        raise UserError(
            f"{where}expected an array of shape (n, {', '.join(map(str, shape))}) like the inputs "
            f"of the training data, got {tuple(inputs.shape)}. In Python, images of other sizes "
            "can be passed as a list."
        )
    shares = inputs.is_floating_point() or inputs.dtype == torch.bool
    if inputs.dtype != torch.uint8 and reading.kind != "text":
        inputs = inputs.float()
    if inputs.is_floating_point():
        low, high = (float(one) for one in inputs.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(f"{where}expected finite numbers, got {low} to {high}.")
        pixels = reading.kind == "image" and reading.preparation.get("white") == 255
        shares &= low >= 0 and 0 < high <= 1
        if pixels and (shares or low < 0 or high > 255):
            hint = "If they are from 0 to 1, multiply them by 255." if shares else "Convert them."
            raise UserError(
                f"{where}expected pixels from 0 to 255, as in training, got {low:.4g} to "
                f"{high:.4g}. {hint}"
            )
    return RawExamples(inputs, [{"row": k} for k in range(len(inputs))])


def _images(given: Sequence[Image.Image | np.ndarray], reading: Reading) -> RawExamples:
    """Prepare images in memory as those in files."""
    if reading.kind != "image":
        raise UserError(
            f"expected examples like those of the training ({reading.kind}), got a list of images "
            "or arrays. Pass one array of inputs (n, ...), or examples of that kind."
        )
    _check_white(reading)
    options, changes = _image_options(reading), ImageChanges()
    skips = SkippedExamples(reading.skip_bad)
    channels, height, width = reading.input_shape
    kept, pixels = [], []
    for k, one in enumerate(given):
        try:
            image = one if isinstance(one, Image.Image) else _of_array(one, k)
            found = to_pixels(image, options, f"image {k}", changes)
            if found.shape != (height, width, channels):
                raise UserError(
                    f"image {k}: expected {height}x{width}x{channels} as in training, got "
                    f"{'x'.join(map(str, found.shape))}. Resize it."
                )
        except UserError as error:
            skips(error)
            continue
        except Exception as error:  # a file that Pillow opened, but has not decoded yet
            skips(UserError(f"image {k}: the image cannot be decoded ({error})."))
            continue
        changes.images += 1
        kept.append({"row": k})
        pixels.append(found)
    empty = np.empty((0, height, width, channels), np.uint8)
    stacked = torch.from_numpy(np.stack(pixels) if pixels else empty)
    inputs = stacked.permute(0, 3, 1, 2).contiguous()
    return RawExamples(inputs, kept, changes.notes(all_read=True), tuple(skips.sentences))


def _of_array(array: np.ndarray, k: int) -> Image.Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or array.shape[2:] not in ((), (1,), (3,), (4,))
    ):
        raise UserError(
            f"image {k}: expected a uint8 array (height, width) or (height, width, channels), got "
            f"{array.dtype} of shape {array.shape}. Convert it."
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _image_options(reading: Reading) -> ImageOptions:
    known = {
        name: str(reading.preparation[name])
        for name in ("channels", "size", "exif", "alpha")
        if reading.preparation.get(name) is not None
    }
    return image_options(known, reading.max_bytes)


def _check_white(reading: Reading) -> None:
    if (white := reading.preparation.get("white")) != 255:
        raise UserError(
            f"expected images whose white pixels have the value {white}, as in training, got image "
            "files, in which they have 255. Choose the data with --data, or pass an array of such "
            "values."
        )

"""Image records of MXNet as a data set: ``rec:TRAIN.rec,TEST.rec``."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, SkippedExamples, Split
from vicinal.data.formats.exif import Looked
from vicinal.data.formats.images import (
    IMAGE_OPTIONS,
    StoredImages,
    image_notes,
    image_split,
)
from vicinal.data.formats.recordio import FRAME, HEADER, RecordFile, image_labels, read_index
from vicinal.data.source_spec import check_options, existing, shape_option
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError

OPTIONS = (*IMAGE_OPTIONS, "raw", "classes", "task")


@dataclass(frozen=True, eq=False)
class RecordImages:
    """The images of a record file, by row.

    Args:
        file: the open file.
        offsets: ``(n,)`` int64, where each record begins.
        lengths: ``(n,)`` int64, of its payload; -1 if it has several splits.
        numbers: ``(n,)`` int64, what number the record has in the file.
    """

    file: RecordFile
    offsets: np.ndarray
    lengths: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.offsets)

    def get(self, row: int) -> bytes:
        """Return the encoded image."""
        payload = self.payload(row)
        if payload[:4] == b"\0\0\0\0" and len(payload) > HEADER.size:
            return payload[HEADER.size :]
        try:
            return payload[image_labels(payload)[1] :]
        except ValueError as error:
            raise UserError(f"{self.name(row)}: {error}") from error

    def payload(self, row: int) -> bytes:
        """Return all that is in the record."""
        offset, length = int(self.offsets[row]), int(self.lengths[row])
        return self.file.read(offset) if length < 0 else self.file.read_whole(offset, length)

    def name(self, row: int) -> str:
        """Return file, record and byte."""
        return f"{self.file.path}, record {self.numbers[row]} at byte {self.offsets[row]}"

    def identity(self, row: int) -> str:
        """Return the number, place and size of a record in its file."""
        return f"{self.numbers[row]} {self.offsets[row]} {self.lengths[row]}"

    def chosen(self, rows: np.ndarray) -> "RecordImages":
        """Return some of them."""
        return RecordImages(self.file, self.offsets[rows], self.lengths[rows], self.numbers[rows])


def load_records(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``rec:TRAIN.rec,TEST.rec``, or ``rec:ALL.rec`` that is divided.

    A third file is the validation split. ``rec:FOLDER`` takes the files ``NAME_train.rec``,
    ``NAME_test.rec`` and ``NAME_validation.rec`` of a folder (also ``train``, ``test`` and ``val``
    without a NAME), or its only ``.rec`` file.

    A ``.idx`` file beside a ``.rec`` has to list all records; without one the file is walked
    through. Options: ``size``, ``channels``, ``exif`` and ``alpha`` as in ``load_folder``;
    ``raw=HEIGHTxWIDTHxCHANNELS`` takes payloads for pixels; ``classes=FILE`` names the classes, a
    line each (else ``NAME_classes.txt`` beside ``NAME_train.rec``, or ``classes.txt``, is taken);
    ``task=regression`` takes whole-numbered labels for real values.

    Labels: one number a record, whole in all of them, is a class; one number, not whole, a real
    value; vectors are ``(n, k)`` float32.

    Raises:
        UserError: for a damaged file, with its byte; for labels that fit no class.
    """
    check_options("rec", options, OPTIONS)
    names = where.split(",")
    notes: list[Note] = []
    if (
        len(names) == 1
        and (folder := existing(where, load_options.root, what="record file")).is_dir()
    ):
        names = [str(path) for path in _files_of(folder)]
        notes.append(Note(f"{folder}: read {', '.join(Path(name).name for name in names)}"))
    if not 1 <= len(names) <= 3:
        raise UserError(
            f"rec: wants one file, TRAIN.rec,TEST.rec or TRAIN.rec,TEST.rec,VALIDATION.rec, got "
            f"{len(names)} names"
        )
    paths = [existing(name, load_options.root, what="record file") for name in names]
    given = _class_names(options.get("classes"), paths[0], load_options)
    opened = [open_records(path, load_options) for path in paths]
    regression = _task(options) == "regression"
    (images, labels, skipped), *rest = opened
    skips = SkippedExamples(load_options.on_bad, skipped)
    classes, targets, rows = _targets(
        images, labels, names=given, regression=regression, skips=skips
    )
    images = images.chosen(rows)
    files = [(images, targets, skipped)]
    for path, (others, other_labels, other_skipped) in zip(paths[1:], rest, strict=True):
        _, other_targets, rows = _targets(
            others,
            other_labels,
            names=classes,
            regression=not classes,
            skips=SkippedExamples(load_options.on_bad, other_skipped),
            training=paths[0],
        )
        _check_widths([paths[0], path], targets, other_targets)
        files.append((others.chosen(rows), other_targets, other_skipped))
    if not rest:
        divided = train_test_rows(
            targets, fraction=load_options.test_fraction, seed=load_options.seed, classes=classes
        )
        files = [
            (images.chosen(k), targets[torch.from_numpy(k)], skipped if split == 0 else [])
            for split, k in enumerate(divided)
        ]
    raw = shape_option("raw", options)
    if raw is not None and (unused := sorted(set(IMAGE_OPTIONS) & options.keys())):
        raise UserError(f"rec: {unused[0]} is for encoded images, and raw= says what raw ones are")
    looked = Looked()
    train, *further = (
        _split(
            chosen,
            labels,
            sentences,
            raw=raw,
            options=options,
            load_options=load_options,
            looked=looked,
        )
        for chosen, labels, sentences in files
    )
    for path, other in zip(paths[1:] or paths, further, strict=True):
        if train.inputs.shape[1:] != other.inputs.shape[1:]:
            raise UserError(
                f"{path} has images of {tuple(other.inputs.shape[1:])}, training ones are "
                f"{tuple(train.inputs.shape[1:])}; size=N in the data's name makes them all N x N"
            )
    validation = further[1] if len(further) > 1 else None
    if not raw:
        notes += image_notes(looked, [train, *further], options, load_options)
    return DataSet(classes, train, further[0], validation, 255, tuple(notes))


def _files_of(folder: Path) -> list[Path]:
    """Return the record files of a folder: training, test and perhaps validation."""
    found = sorted(folder.glob("*.rec"))
    names = ("train", "training"), ("test", "val", "validation"), ("val", "validation")
    chosen: list[Path] = []
    for words in names:
        fitting = [
            path
            for word in words
            for path in found
            if path.stem.lower().rpartition("_")[2] == word and path not in chosen
        ]
        if [path.stem.lower().rpartition("_")[2] for path in fitting[:2]] == [words[0]] * 2:
            raise UserError(
                f"{folder} has several record files for {words[0]}, such as {fitting[0].name} and "
                f"{fitting[1].name}; name the files: rec:TRAIN.rec,TEST.rec"
            )
        chosen += fitting[:1]
    if found and (len(found) == 1 or len(chosen) > 1):
        return chosen if len(chosen) > 1 else found
    there = ", ".join(path.name for path in found[:20]) or "no .rec file"
    raise UserError(
        f"{folder} has {there}; expected NAME_train.rec and NAME_test.rec, or one file; name the "
        "files: rec:TRAIN.rec,TEST.rec"
    )


def open_records(
    path: Path, load_options: LoadOptions
) -> tuple[RecordImages, np.ndarray, list[str]]:
    """Open a file of image records.

    Returns:
        Its images, their labels ``(n, k)`` float32, and a sentence for what had to be left out.

    Raises:
        UserError: if the file or its index is damaged; for a record that is too short for its
            header, or has other labels than the first, unless such are to be skipped.
    """
    file = RecordFile(path)
    index = path.with_suffix(".idx")
    if index.exists():
        offsets = read_index(index)
        try:
            lengths = np.fromiter(file.lengths(offsets.tolist()), np.int64, len(offsets))
        except UserError as error:
            raise UserError(f"{error}; it is {index} that sends there") from error
        _check_index(file, offsets, lengths, index)
    else:
        frames = np.fromiter(file.scan(), np.dtype([("offset", np.int64), ("length", np.int64)]))
        offsets, lengths = frames["offset"].copy(), frames["length"].copy()
    images = RecordImages(file, offsets, lengths, np.arange(len(offsets)))
    # Nothing but numbers in arrays, since there may be millions of records.
    labels = array("f")
    kept = array("q")
    width = 0
    skips = SkippedExamples(load_options.on_bad)
    for row in range(len(images)):
        try:
            numbers = _labels(images, row)
            width = width or len(numbers)
            if len(numbers) != width or not np.isfinite(numbers).all():
                raise UserError(
                    f"{images.name(row)}: wanted {width} finite label{'s' if width > 1 else ''} "
                    f"like the first record, found {numbers.tolist()}"
                )
        except UserError as error:
            skips(error)
        else:
            labels.extend(numbers.tolist())
            kept.append(row)
    if not kept:
        raise UserError(f"{path} has no image record that can be read")
    values = np.array(labels, np.float32).reshape(len(kept), width)
    return images.chosen(np.array(kept, np.int64)), values, skips.sentences


def _check_index(file: RecordFile, offsets: np.ndarray, lengths: np.ndarray, index: Path) -> None:
    """Refuse an index that leaves records out."""
    order = np.argsort(offsets)
    ends = np.append(offsets[order][1:], file.size) - offsets[order]
    whole = lengths[order] == ends - FRAME.size - np.mod(-lengths[order], 4)
    if len(offsets) and offsets.min() == 0 and whole.all():
        return  # each record ends where the next one begins
    count = sum(1 for _ in file.scan())
    if count != len(offsets):
        raise UserError(
            f"{index} lists {len(offsets)} of the {count} records in {file.path}; delete the index "
            "to read them all, or make it anew"
        )


def _labels(images: RecordImages, row: int) -> np.ndarray:
    file, offset, length = images.file, int(images.offsets[row]), int(images.lengths[row])
    head = file.peek(offset, length, HEADER.size)
    if count := int.from_bytes(head[:4], "little"):
        head = file.peek(offset, length, min(HEADER.size + 4 * count, file.size))
    try:
        return image_labels(head)[0]
    except ValueError as error:
        raise UserError(f"{images.name(row)}: {error}") from error


def _targets(
    images: RecordImages,
    values: np.ndarray,
    *,
    names: tuple[str, ...],
    regression: bool,
    skips: SkippedExamples,
    training: Path | None = None,
) -> tuple[tuple[str, ...], Tensor, np.ndarray]:
    """Return the classes and the targets that the labels of a file say, and the rows that fit."""
    every = np.arange(len(values))
    if values.shape[1] > 1:
        return (), torch.from_numpy(values), every
    column = values[:, 0]
    whole = column == np.round(column)
    if regression or whole.mean() < 0.5:
        return (), torch.from_numpy(column), every
    count = len(names) or min(int(column.max(initial=0)) + 1, len(column))
    fits = whole & (column >= 0) & (column < count)
    for row in np.flatnonzero(~fits).tolist():
        known = f"one of the {count} classes" if names else f"a class of {len(column)} records"
        of = f" of {training}" if training else ""
        skips(
            UserError(
                f"{images.name(row)}: wanted {known}{of}, 0 to {count - 1}, found the label "
                f"{column[row]:g}; task=regression in the data's name takes labels for real values"
            )
        )
    if not fits.any():
        raise UserError(f"{images.file.path} has no record with a label of a class")
    classes = names or tuple(str(k) for k in range(count))
    return classes, torch.from_numpy(column[fits].astype(np.int64)), every[fits]


def _check_widths(paths: list[Path], train: Tensor, test: Tensor) -> None:
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise UserError(
            f"{paths[1]} has targets of shape {tuple(test.shape)} {test.dtype}, those of "
            f"{paths[0]} are {tuple(train.shape)} {train.dtype}; both splits need the same kind"
        )


def _split(
    images: RecordImages,
    targets: Tensor,
    skipped: list[str],
    *,
    raw: tuple[int, ...] | None,
    options: Mapping[str, str],
    load_options: LoadOptions,
    looked: Looked,
) -> Split:
    if raw is not None:
        height, width, channels = raw
        first = len(images.get(0))
        if first != height * width * channels:
            raise UserError(
                f"{images.name(0)}: wanted {height * width * channels} bytes, a raw image of "
                f"{height}x{width}x{channels}, found {first}"
            )
        stored = StoredImages(
            images, (len(images), channels, height, width), raw=True, on_bad=load_options.on_bad
        )
        return image_split(stored, targets, load_options, skipped)
    stored = StoredImages.by_options(images, options, load_options, looked)
    return image_split(stored, targets, load_options, skipped)


def _class_names(file: str | None, first: Path, load_options: LoadOptions) -> tuple[str, ...]:
    if file is None:
        own = first.with_name(f"{first.stem.removesuffix('_train')}_classes.txt")
        beside = [path for path in (own, first.with_name("classes.txt")) if path.exists()]
        if not beside:
            return ()
        path = beside[0]
    else:
        path = existing(file, load_options.root, what="file of class names")
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: wanted class names, a line each ({error})") from error
    if not all(names) or len(set(names)) < len(names):
        raise UserError(f"{path}: a class name is empty, or comes twice")
    return names


def _task(options: Mapping[str, str]) -> str:
    task = options.get("task", "classification")
    if task not in {"classification", "regression"}:
        raise UserError(f"task={task}: wanted classification or regression")
    return task

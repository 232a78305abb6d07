"""Data sets of MXNet's image records: ``rec:TRAIN.rec,TEST.rec``."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, SkippedExamples, Split
from vicinal.data.formats.images import IMAGE_OPTIONS, image_options
from vicinal.data.formats.recordio import FRAME, HEADER, RecordFile, image_labels, read_index
from vicinal.data.formats.stored_images import StoredImages, image_notes, image_split
from vicinal.data.source_spec import check_options, choice, existing, shape_option
from vicinal.data.train_test_split import train_test_rows
from vicinal.errors import UserError


@dataclass(frozen=True, eq=False)
class RecordImages:
    """The images of a record file, by row.

    Args:
        file: the open file.
        offsets: ``(n,)`` int64, where each record begins.
        lengths: ``(n,)`` int64, of its payload; -1 if it has several parts.
        numbers: ``(n,)`` int64, the number of the record in the file.
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
        offset, length = int(self.offsets[row]), int(self.lengths[row])
        payload = self.file.read(offset) if length < 0 else self.file.read_whole(offset, length)
        if payload[:4] == b"\0\0\0\0" and len(payload) > HEADER.size:  # one label, the usual case
            return payload[HEADER.size :]
        try:
            return payload[image_labels(payload)[1] :]
        except ValueError as error:
            raise UserError(f"{self.name(row)}: {error}") from error

    def labels(self, row: int) -> np.ndarray:
        """Return the labels of a record, ``(k,)`` float32, without reading the image."""
        offset, length = int(self.offsets[row]), int(self.lengths[row])
        head = self.file.peek(offset, length, HEADER.size)
        if count := int.from_bytes(head[:4], "little"):
            head = self.file.peek(offset, length, min(HEADER.size + 4 * count, self.file.size))
        try:
            return image_labels(head)[0]
        except ValueError as error:
            raise UserError(f"{self.name(row)}: {error}") from error

    def name(self, row: int) -> str:
        """Return file, record and byte, for errors."""
        return f"{self.file.path}, record {self.numbers[row]} at byte {self.offsets[row]}"

    def identity(self, row: int) -> str:
        """Return the number, offset and size of a record in its file."""
        return f"{self.numbers[row]} {self.offsets[row]} {self.lengths[row]}"

    def rows(self, rows: np.ndarray) -> "RecordImages":
        """Return some of the records."""
        return RecordImages(self.file, self.offsets[rows], self.lengths[rows], self.numbers[rows])


def load_records(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``rec:TRAIN.rec,TEST.rec``, or ``rec:ALL.rec``, which is split.

    A third file is the validation split. ``rec:FOLDER`` reads the files ``NAME_train.rec``,
    ``NAME_test.rec`` and ``NAME_validation.rec`` of a folder (also ``train``, ``test`` and ``val``
    without a NAME), or its only ``.rec`` file.

    A ``.idx`` file next to a ``.rec`` file has to list all records; without one the file is
    scanned. Options: ``size``, ``channels``, ``exif`` and ``alpha`` as in ``load_folder``;
    ``raw=HEIGHTxWIDTHxCHANNELS`` reads payloads as pixels; ``classes=FILE`` names the classes, one
    per line (by default ``NAME_classes.txt`` next to ``NAME_train.rec``, or ``classes.txt``);
    ``task=regression`` reads integer labels as real values.

    Labels: one number per record is a class if all are integers, else a real value; vectors are
    ``(n, k)`` float32.

    Raises:
        UserError: for a damaged file, with the byte; for labels that are not classes.
    """
    check_options("rec", options, (*IMAGE_OPTIONS, "raw", "classes", "task"))
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
            f"rec: expected one file, TRAIN.rec,TEST.rec or TRAIN.rec,TEST.rec,VALIDATION.rec, got "
            f"{len(names)} names"
        )
    paths = [existing(name, load_options.root, what="record file") for name in names]
    classes = _class_names(options.get("classes"), paths[0], load_options)
    regression = choice("task", options, ("classification", "regression")) == "regression"
    raw = shape_option("raw", options)
    if raw is not None and (unused := sorted(set(IMAGE_OPTIONS) & options.keys())):
        raise UserError(f"rec: {unused[0]} is for encoded images, and raw= is for raw ones")
    files: list[tuple[RecordImages, Tensor, list[str]]] = []
    for path in paths:
        images, values, skipped = open_records(path, load_options)
        classes, targets, rows = _targets(
            images,
            values,
            names=classes,
            regression=regression,
            skips=SkippedExamples(load_options.skip_bad, skipped),
            training=paths[0] if files else None,
        )
        regression = not classes
        first = files[0][1] if files else targets
        if targets.shape[1:] != first.shape[1:] or targets.dtype != first.dtype:
            raise UserError(
                f"{path}: expected targets of shape {tuple(first.shape[1:])} {first.dtype} like "
                f"{paths[0]}, got {tuple(targets.shape[1:])} {targets.dtype}"
            )
        files.append((images.rows(rows), targets, skipped))
    if len(files) == 1:
        ((images, targets, skipped),) = files
        divided = train_test_rows(
            targets,
            fraction=load_options.test_fraction,
            seed=load_options.seed,
            classes=classes,
        )
        files = [
            (images.rows(k), targets[torch.from_numpy(k)], own)
            for k, own in zip(divided, (skipped, []), strict=True)
        ]
    if raw is not None:
        stored = _raw_images(files[0][0], raw, load_options)
    else:
        decoding = image_options(options, load_options.max_bytes)
        stored = StoredImages.of(files[0][0], decoding, load_options.skip_bad)
    splits: list[Split] = []
    for path, (images, targets, skipped) in zip([*paths, *paths], files, strict=False):
        own = (
            StoredImages.of(images, stored.options, load_options.skip_bad)
            if raw is None
            else stored
        )
        if own.shape[1:] != stored.shape[1:]:
            raise UserError(
                f"{path}: expected images of shape {stored.shape[1:]} like the training images, "
                f"got {own.shape[1:]}; size=N resizes all images to N x N"
            )
        splits.append(image_split(stored.of_files(images), targets, load_options, skipped))
    if raw is None:
        notes += image_notes(stored, splits)
    return DataSet(
        classes, splits[0], splits[1], splits[2] if len(splits) > 2 else None, 255, tuple(notes)
    )


def _files_of(folder: Path) -> list[Path]:
    """Return the record files of a folder: training, test and perhaps validation."""
    found = sorted(folder.glob("*.rec"))
    chosen: list[Path] = []
    for words in ("train", "training"), ("test", "val", "validation"), ("val", "validation"):
        fitting = [
            path
            for word in words
            for path in found
            if path.stem.lower().rpartition("_")[2] == word and path not in chosen
        ]
        if [path.stem.lower().rpartition("_")[2] for path in fitting[:2]] == [words[0]] * 2:
            raise UserError(
                f"{folder}: expected one record file for {words[0]}, got {fitting[0].name} and "
                f"{fitting[1].name}; name the files as rec:TRAIN.rec,TEST.rec"
            )
        chosen += fitting[:1]
    if len(chosen) > 1 or len(found) == 1:
        return chosen if len(chosen) > 1 else found
    raise UserError(
        f"{folder}: expected NAME_train.rec and NAME_test.rec, or one file, got "
        f"{', '.join(path.name for path in found[:20]) or 'no .rec file'}; name the files as "
        "rec:TRAIN.rec,TEST.rec"
    )


def open_records(
    path: Path, load_options: LoadOptions
) -> tuple[RecordImages, np.ndarray, list[str]]:
    """Open a file of image records.

    Returns:
        Its images, their labels ``(n, k)`` float32, and a sentence for each skipped record.

    Raises:
        UserError: if the file or its index is damaged; for a record that is too short for its
            header or has another number of labels than the first, unless such records are skipped.
    """
    file = RecordFile(path)
    index = path.with_suffix(".idx")
    if index.exists():
        offsets = read_index(index)
        try:
            lengths = np.fromiter(file.lengths(offsets.tolist()), np.int64, len(offsets))
        except UserError as error:
            raise UserError(f"{error}. {index} lists this offset") from error
        _check_index(file, offsets, lengths, index)
    else:
        frames = np.fromiter(file.scan(), np.dtype([("offset", np.int64), ("length", np.int64)]))
        offsets, lengths = frames["offset"].copy(), frames["length"].copy()
    images = RecordImages(file, offsets, lengths, np.arange(len(offsets)))
    # Arrays of numbers, since there may be millions of records.
    labels = array("f")
    kept = array("q")
    width = 0
    skips = SkippedExamples(load_options.skip_bad)
    for row in range(len(images)):
        try:
            numbers = images.labels(row)
            width = width or len(numbers)
            if len(numbers) != width or not np.isfinite(numbers).all():
                raise UserError(
                    f"{images.name(row)}: expected {width} finite label{'s' if width > 1 else ''} "
                    f"like the first record, got {numbers.tolist()}"
                )
        except UserError as error:
            skips(error)
        else:
            labels.extend(numbers.tolist())
            kept.append(row)
    if not kept:
        raise UserError(f"{path} has no readable image record")
    values = np.array(labels, np.float32).reshape(len(kept), width)
    return images.rows(np.array(kept, np.int64)), values, skips.sentences


def _check_index(file: RecordFile, offsets: np.ndarray, lengths: np.ndarray, index: Path) -> None:
    """Raise if an index does not list all records."""
    order = np.argsort(offsets)
    ends = np.append(offsets[order][1:], file.size) - offsets[order]
    whole = lengths[order] == ends - FRAME.size - np.mod(-lengths[order], 4)
    if len(offsets) and offsets.min() == 0 and whole.all():
        return  # each record ends where the next one begins
    count = sum(1 for _ in file.scan())
    if count != len(offsets):
        raise UserError(
            f"{index} lists {len(offsets)} of the {count} records in {file.path}; delete the index "
            "to read them all, or write it again"
        )


def _targets(
    images: RecordImages,
    values: np.ndarray,
    *,
    names: tuple[str, ...],
    regression: bool,
    skips: SkippedExamples,
    training: Path | None = None,
) -> tuple[tuple[str, ...], Tensor, np.ndarray]:
    """Return classes, targets, and the rows whose labels are among the classes."""
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
                f"{images.name(row)}: expected {known}{of}, 0 to {count - 1}, got the label "
                f"{column[row]:g}; task=regression reads labels as real values"
            )
        )
    if not fits.any():
        raise UserError(f"{images.file.path} has no record whose label is a class")
    classes = names or tuple(str(k) for k in range(count))
    return classes, torch.from_numpy(column[fits].astype(np.int64)), every[fits]


def _raw_images(
    images: RecordImages, raw: tuple[int, ...], load_options: LoadOptions
) -> StoredImages:
    height, width, channels = raw
    if (got := len(images.get(0))) != height * width * channels:
        raise UserError(
            f"{images.name(0)}: expected {height * width * channels} bytes, a raw image of "
            f"{height}x{width}x{channels}, got {got}"
        )
    return StoredImages(
        images, (len(images), channels, height, width), raw=True, skip_bad=load_options.skip_bad
    )


def _class_names(file: str | None, first: Path, load_options: LoadOptions) -> tuple[str, ...]:
    if file is None:
        own = first.with_name(f"{first.stem.removesuffix('_train')}_classes.txt")
        nearby = [path for path in (own, first.with_name("classes.txt")) if path.exists()]
        if not nearby:
            return ()
        path = nearby[0]
    else:
        path = existing(file, load_options.root, what="file of class names")
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected class names, one per line ({error})") from error
    if not all(names) or len(set(names)) < len(names):
        raise UserError(f"{path}: expected different class names, got an empty or repeated one")
    return names

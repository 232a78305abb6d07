"""Data sets of MXNet's image records: ``rec:TRAIN.rec,TEST.rec``."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from vicinal.data.dataset import DataSet, LoadOptions, Note, SkippedExamples
from vicinal.data.formats.file_listing import SPLIT_NAMES, is_litter, splits_by_name
from vicinal.data.formats.image_data_set import LabeledFiles, image_data_set
from vicinal.data.formats.images import IMAGE_OPTIONS, image_options
from vicinal.data.formats.labels import rows_with_known_labels, target_notes
from vicinal.data.formats.recordio import HEADER, RecordFile, image_labels, read_index
from vicinal.data.source_spec import existing, shape_option
from vicinal.errors import UserError
from vicinal.options import check_options, choice


@dataclass(frozen=True, eq=False)
class _Records:
    """The images of a record file: number, offset and length of each record, ``(n, 3)`` int64."""

    file: RecordFile
    table: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def get(self, row: int) -> bytes:
        _, offset, length = self.table[row].tolist()
        payload = self.file.read(offset, length)
        return payload[HEADER.size + 4 * int.from_bytes(payload[:4], "little") :]

    def labels(self, row: int) -> np.ndarray:
        """Return the labels of a record, ``(k,)`` float32, without reading the image."""
        _, offset, length = self.table[row].tolist()
        head = self.file.read(offset, length, HEADER.size)
        if count := int.from_bytes(head[:4], "little"):
            head = self.file.read(offset, length, HEADER.size + 4 * count)
        try:
            return image_labels(head)[0]
        except ValueError as error:
            raise UserError(f"{self.name(row)}: {error}.") from error

    def name(self, row: int) -> str:
        return f"{self.file.path}, record {self.table[row, 0]} at byte {self.table[row, 1]}"

    def fingerprint(self) -> str:
        found = self.file.path.stat()
        about = f"{self.file.path.resolve()}\n{found.st_size} {found.st_mtime_ns}"
        digest = hashlib.sha256(f"{about} {found.st_ctime_ns}".encode("utf-8", "surrogateescape"))
        digest.update(np.ascontiguousarray(self.table).data)
        return digest.hexdigest()

    def identity(self, row: int) -> str:
        return " ".join(map(str, self.table[row]))

    def rows(self, rows: np.ndarray) -> "_Records":
        return _Records(self.file, self.table[rows])


def load_records(where: str, options: Mapping[str, str], load_options: LoadOptions) -> DataSet:
    """Load ``rec:TRAIN.rec,TEST.rec``, or ``rec:ALL.rec``, which is split.

    A third file is the validation split. ``rec:FOLDER`` reads the files ``NAME_train.rec``,
    ``NAME_test.rec`` and ``NAME_validation.rec`` of a folder (also ``train``, ``test`` and ``val``
    without a NAME), or its only ``.rec`` file.

    A ``.idx`` file next to a ``.rec`` file decides the order, and has to list all records.
    Options: ``size``, ``channels``, ``exif`` and ``alpha`` as in ``load_folder``;
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
    if len(names) > 3:
        raise UserError(
            f"rec: expected one file, TRAIN.rec,TEST.rec or TRAIN.rec,TEST.rec,VALIDATION.rec, got "
            f"{len(names)} names."
        )
    notes: list[Note] = []
    paths = [existing(name, load_options.root, what="record file") for name in names]
    if len(paths) == 1 and (folder := paths[0]).is_dir():
        paths = _files_of(folder)
        notes.append(Note(f"{folder}: read {', '.join(path.name for path in paths)}"))
    classes = _class_names(options.get("classes"), paths[0], load_options)
    regression = choice("task", options, ("classification", "regression")) == "regression"
    raw = shape_option("raw", options)
    if raw is not None and (unused := sorted(set(IMAGE_OPTIONS) & options.keys())):
        raise UserError(
            f"rec: {unused[0]} is for encoded images and cannot be used together with raw. Remove "
            "one of the two options."
        )
    files: dict[str, LabeledFiles] = {}
    width = 0
    for split, path in zip(("train", "test", "validation"), paths, strict=False):
        images, labels, skipped = _open_records(path, load_options.skip_bad)
        if split == "train":
            width = labels.shape[1]
            if regression or width > 1 or (labels == labels.round()).mean() < 0.5:
                classes = ()
            elif not classes:
                count = max(1, min(int(labels.max()) + 1, len(labels)))
                classes = tuple(map(str, range(count)))
                if "task" not in options:
                    text = f"the labels are integers and are read as {count} classes"
                    notes.append(Note(f"{text}; task=regression reads them as real values"))
            if not classes and not regression:
                notes += target_notes(labels)
        if labels.shape[1] != width:
            raise UserError(
                f"{path}: expected {width} label{'s' if width > 1 else ''} for each record, as in "
                f"{paths[0]}, got {labels.shape[1]}. Read the files one by one."
            )
        if classes:
            hint = " classes=FILE lists the classes, and task=regression reads real values."
            rows = rows_with_known_labels(
                labels[:, 0], range(len(classes)), images.name, skipped, hint
            )
            images, labels = images.rows(rows), labels[rows].astype(np.int64)
        targets = torch.from_numpy(labels if width > 1 else labels[:, 0].copy())
        files[split] = images, targets, skipped.sentences
    decoding = image_options(options, load_options.max_bytes)._replace(raw=raw)
    return image_data_set(classes, files, decoding, load_options, notes)


def _files_of(folder: Path) -> list[Path]:
    """Return the record files of a folder: training, test and perhaps validation."""
    found = sorted(path for path in folder.glob("*.rec") if not is_litter(path.name))
    named: dict[str, Path] = {}
    for path in found:
        word = path.stem.lower().rpartition("_")[2]
        if word in named and any(word in words for words in SPLIT_NAMES.values()):
            raise UserError(
                f"{folder}: expected one record file for {word}, got {named[word].name} and "
                f"{path.name}. Name both files in the source: rec:TRAIN.rec,TEST.rec."
            )
        named[word] = path
    splits = splits_by_name(named)
    if {"train", "test"} <= splits.keys():
        return [splits[name] for name in SPLIT_NAMES if name in splits]
    if len(found) == 1:
        return found
    raise UserError(
        f"{folder}: expected NAME_train.rec and NAME_test.rec, or one file, got "
        f"{', '.join(path.name for path in found[:20]) or 'no .rec file'}. Name both "
        "files in the source: rec:TRAIN.rec,TEST.rec."
    )


def _open_records(path: Path, skip_bad: bool) -> tuple[_Records, np.ndarray, SkippedExamples]:
    """Return the images of a file, their labels ``(n, k)`` float32, and the skipped records."""
    file = RecordFile(path)
    frames = np.fromiter(chain.from_iterable(file.scan()), np.int64).reshape(-1, 2)
    index = path.with_suffix(".idx")
    if index.exists():
        frames = frames[_order(index, frames[:, 0])]
    images = _Records(file, np.column_stack([np.arange(len(frames)), frames]))
    # Arrays of numbers, since there may be millions of records.
    labels, kept = array("f"), array("q")
    width = 0
    skipped = SkippedExamples(skip_bad)
    for row in range(len(images)):
        try:
            numbers = images.labels(row)
            width = width or len(numbers)
            if len(numbers) != width or not np.isfinite(numbers).all():
                raise UserError(
                    f"{images.name(row)}: expected {width} finite label{'s' if width > 1 else ''} "
                    f"as in the first record, got {numbers.tolist()}."
                )
        except UserError as error:
            skipped(error)
        else:
            labels.extend(numbers.tolist())
            kept.append(row)
    if not kept:
        raise UserError(f"{path} has no readable image record.")
    values = np.array(labels, np.float32).reshape(len(kept), width)
    return images.rows(np.array(kept, np.int64)), values, skipped


def _order(index: Path, offsets: np.ndarray) -> np.ndarray:
    """Return the rows of records in the order of an index, which has to list all of them."""
    listed = read_index(index)
    if len(wrong := np.setdiff1d(listed, offsets)):
        raise UserError(
            f"{index} lists byte {wrong[0]}, where no record begins. Delete the index, or write it "
            "again."
        )
    if len(listed) < len(offsets):
        raise UserError(
            f"{index} lists {len(listed)} of the {len(offsets)} records. Delete the index to read "
            "them all, or write it again."
        )
    return np.searchsorted(offsets, listed)


def _class_names(file: str | None, first: Path, load_options: LoadOptions) -> tuple[str, ...]:
    own = first.with_name(f"{first.stem.removesuffix('_train')}_classes.txt")
    path = own if own.exists() else first.with_name("classes.txt")
    if file is not None:
        path = existing(file, load_options.root, what="file of class names")
    elif not path.exists():
        return ()
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected class names, one per line ({error}).") from error
    if wrong := [name for name, count in Counter(names).items() if not name or count > 1]:
        raise UserError(
            f"{path}: expected distinct, non-empty class names, got {wrong[0]!r} in line "
            f"{names.index(wrong[0]) + 1}{' and others' * (names.count(wrong[0]) > 1)}. Correct it."
        )
    return names

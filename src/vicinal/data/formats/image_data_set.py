"""Data sets of images in files: their splits, in memory or not, decoded once and cached."""

import functools
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, LoadOptions, Note, ReadResult, Split
from vicinal.data.formats import images as image_decoding
from vicinal.data.formats.image_cache import DecodedImages, cached
from vicinal.data.formats.images import ImageChanges, ImageOptions
from vicinal.data.formats.stored_images import ImageFiles, StoredImages
from vicinal.data.threads import available_cores
from vicinal.data.train_test_split import rows_by_options
from vicinal.errors import UserError

_PIECE = 1 << 26  # bytes of images that are read together
_WORTH_CACHING = 1000  # images, which take about a second to decode and resize
_FIRST = 100  # images of a split in files that are decoded to count changes

LabeledFiles = tuple[ImageFiles, Tensor, Sequence[str]]
"""The images of a split, their targets, and a sentence for each example that was skipped."""


def image_data_set(
    classes: tuple[str, ...],
    files: Mapping[str, LabeledFiles],
    options: ImageOptions,
    load_options: LoadOptions,
    notes: Iterable[Note],
) -> DataSet:
    """Return a data set of images in files. Training files without test files are split in two.

    Images that are resized and fit into memory are decoded once and cached, if there are 1,000 or
    more of them.
    """
    fixed_test = "test" in files
    # The files and the rows of each split.
    rows = {name: (name, np.arange(len(targets))) for name, (_, targets, _) in files.items()}
    if not fixed_test:
        train, test = rows_by_options(files["train"][1], load_options, classes)
        rows |= {"train": ("train", train), "test": ("train", test)}
    first = files["train"][0].rows(rows["train"][1])
    stored = StoredImages.of(first, options, load_options.skip_bad)
    decoded: dict[str, DecodedImages] = {}
    notes = list(notes)
    for name, (images, _, _) in files.items():
        whole = stored.of_files(images)
        if len(images) >= _WORTH_CACHING and _in_memory(whole, load_options) and options.size:
            decoded[name], about_cache = cached(
                _cache_key(whole), functools.partial(_decode, whole)
            )
            stored.changes.add(decoded[name].changes)
            notes += [note for note in about_cache if note not in notes]
    splits: dict[str, Any] = {}
    for name, (source, chosen) in rows.items():
        images, targets, skipped = files[source]
        skipped = skipped if source == name else ()
        if source in decoded:
            splits[name] = _decoded_split(decoded[source], chosen, targets, skipped)
        else:
            some = stored.of_files(images.rows(chosen))
            splits[name] = image_split(some, targets[chosen], load_options, skipped)
    all_read = True
    for split in splits.values():
        if not isinstance(split.inputs, Tensor):
            all_read = False
            replace(split.inputs, skip_bad=True).read(range(min(_FIRST, len(split))))
    return DataSet(
        classes,
        **splits,
        brightest=255,
        notes=(*notes, *stored.changes.notes(all_read=all_read)),
        fixed_test=fixed_test,
    )


def _in_memory(stored: StoredImages, load_options: LoadOptions) -> bool:
    return math.prod(stored.shape) <= load_options.in_memory


def image_split(
    stored: StoredImages, targets: Tensor, load_options: LoadOptions, skipped: Sequence[str] = ()
) -> Split:
    """Return images as a split: in memory if they fit there, else as they are stored."""
    if not _in_memory(stored, load_options):
        return Split(stored, targets, tuple(skipped))
    read = _read_all(stored)
    return Split(read.inputs, targets[read.kept], (*skipped, *read.skipped))


def _read_all(stored: StoredImages) -> ReadResult:
    """Read and decode all images, several at a time.

    Raises:
        UserError: if one cannot be read and is not to be skipped; the first one, whatever the
            order in which they were decoded. Also if none can be read.
    """
    count = len(stored.files)
    together = max(1, min(256, _PIECE // max(1, math.prod(stored.shape[1:]))))
    pieces = [range(k, min(k + together, count)) for k in range(0, count, together)]
    readers = [replace(stored, changes=ImageChanges()) for _ in pieces]
    inputs = torch.empty(stored.shape, dtype=torch.uint8)
    kept: list[int] = []
    skipped: list[str] = []
    # The decoders release Python's lock.
    with ThreadPoolExecutor(min(8, available_cores())) as threads:
        results = threads.map(StoredImages.read, readers, pieces)
        for piece, reader, read in zip(pieces, readers, results, strict=True):
            inputs[len(kept) : len(kept) + len(read.kept)] = read.inputs
            kept += (piece.start + read.kept).tolist()
            skipped += read.skipped
            stored.changes.add(reader.changes)
    if not kept:
        raise UserError(f"none of {count} images can be read. {skipped[-1]}")
    if len(kept) < count:
        inputs = inputs[: len(kept)].clone()
    return ReadResult(inputs, np.array(kept, np.int64), skipped)


def _cache_key(stored: StoredImages) -> str:
    """Return a hash of the files, the options, and the code that decodes them."""
    code = Path(image_decoding.__file__).read_bytes()
    about = (stored.options, stored.skip_bad, PIL.__version__, version("simplejpeg"))
    parts = f"{stored.files.fingerprint()} {about}".encode()
    return hashlib.sha256(code + parts).hexdigest()[:32]


def _decode(stored: StoredImages) -> DecodedImages:
    own = replace(stored, changes=ImageChanges())
    read = _read_all(own)
    return DecodedImages(read.inputs.numpy(), read.kept, read.skipped, own.changes)


def _decoded_split(
    decoded: DecodedImages, rows: np.ndarray, targets: Tensor, skipped: Sequence[str]
) -> Split:
    """Return some of the images that were decoded, and the messages of those that were not."""
    place = np.full(len(targets), -1)
    place[decoded.kept] = np.arange(len(decoded.kept))
    messages = dict(zip(np.flatnonzero(place < 0).tolist(), decoded.skipped, strict=True))
    good = rows[place[rows] >= 0]
    if not len(good):
        raise UserError(f"none of {len(rows)} images can be read. {decoded.skipped[-1]}")
    inputs = torch.from_numpy(np.asarray(decoded.pixels)[place[good]])
    sentences = (messages[row] for row in rows.tolist() if row in messages)
    return Split(inputs, targets[good], (*skipped, *sentences))

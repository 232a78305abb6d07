"""Convert data sets to MXNet's records, folders of images, or one npz file."""

import io
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, Split
from vicinal.data.formats.recordio import pack_image, write_record
from vicinal.data.formats.stored_images import StoredImages
from vicinal.errors import UserError, unknown
from vicinal.files import put_in_place, write_whole

ENCODINGS = ("same", "png", "jpeg", "raw")
Progress = Callable[[str, int, int], None]
ReportSkipped = Callable[[str, str], None]

_CHUNK = 1024
_PIECE = 1 << 26  # bytes that are read at once


def convert(
    data: DataSet,
    out: Path,
    *,
    encoding: str = "same",
    quality: int = 95,
    progress: Progress = lambda split, done, of: None,
    skipped: ReportSkipped = lambda split, sentence: None,
) -> list[Path]:
    """Write a data set in another format, which follows from the name of the output.

    ``NAME.npz`` is a file for ``load("npz:NAME.npz")``. ``NAME.rec`` writes a file for each split,
    such as ``NAME_train.rec`` and ``NAME_test.rec``, each with an index, which MXNet reads too. The
    names of the classes go into ``NAME_classes.txt``. Any other name is a folder, with the folders
    ``train``, ``test`` and, if there is such a split, ``val``. Each of them has one folder per
    class. Files have temporary names until they are complete. Pixels are scaled if white is not 255
    (``brightest``), as in ``digits``, where it is 16.

    Args:
        data: the data set. Load it with ``in_memory=0`` to copy encoded images byte for byte.
        out: path of the output.
        encoding: the encoding of images in records and folders. ``"same"`` copies the bytes of
            encoded color images that are read without options, and writes other images as PNG,
            which is lossless. ``"raw"`` writes pixels, in records only.
        quality: quality of JPEG, from 1 to 100. Colors have half the resolution, as in MXNet and
            OpenCV.
        progress: called with the split, the number of examples written, and their total.
        skipped: called with the split and a sentence for each example that cannot be read.

    Returns:
        The files that were written, or the folder.

    Raises:
        UserError: if the format cannot hold the data, or the output exists.
    """
    if encoding not in ENCODINGS:
        raise UserError(unknown("encoding", encoding, ENCODINGS))
    if not 1 <= quality <= 100:
        raise UserError(f"quality: expected an integer from 1 to 100, got {quality}.")
    if data.train.inputs.dtype == torch.int64:
        raise UserError(
            f"{out}: expected images or arrays, got texts, which none of these formats can hold. "
            "Use their table directly."
        )
    for name, split in data.splits.items():
        for sentence in split.skipped:
            skipped(name, sentence)
    if data.brightest not in (None, 255):
        scaled: dict[str, Any] = {k: _to_255(data, split) for k, split in data.splits.items()}
        data = replace(data, **scaled, brightest=255)
    writer = _Writer(data, out, encoding, quality, progress, skipped)
    if out.suffix == ".npz":
        return [writer.npz()]
    if data.train.inputs.dtype != torch.uint8:
        raise UserError(
            f"{out}: records and folders hold images, got {data.train.inputs.dtype} "
            f"{tuple(data.train.inputs.shape[1:])}. Convert to NAME.npz instead."
        )
    if out.suffix == ".rec":
        return writer.records()
    if encoding == "raw":
        raise UserError(
            f"{out}: expected encoded images, since the output is a folder, got --encoding raw. "
            "Choose --encoding png, or write to NAME.rec."
        )
    return [writer.folder()]


def _to_255(data: DataSet, split: Split) -> Split:
    """Return a split whose white is 255, as all formats have it."""
    assert isinstance(split.inputs, Tensor)
    assert data.brightest
    return replace(split, inputs=(split.inputs * (255 / data.brightest)).round().to(torch.uint8))


@dataclass
class _Writer:
    """Writes one data set to one output."""

    data: DataSet
    out: Path
    encoding: str
    quality: int
    progress: Progress
    skipped: ReportSkipped

    def npz(self) -> Path:
        _check_new(self.out)
        images = self.data.train.inputs.dtype == torch.uint8
        arrays: dict[str, Any] = {"classes": np.array(self.data.classes, dtype=str)}
        for name, split in self.data.splits.items():
            chunks = []
            kept = []
            for rows, inputs in self._chunks(name, split):
                chunks.append(inputs.permute(0, 2, 3, 1).numpy() if images else inputs.numpy())
                kept.append(rows)
            if not kept:
                raise UserError(f"no example of the {name} split can be read. Nothing was written.")
            arrays[f"{name}_{'images' if images else 'inputs'}"] = np.concatenate(chunks)
            arrays[f"{name}_labels"] = split.targets[torch.cat(kept)].numpy()
        partial = self.out.with_name(f".{self.out.name}.part")
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        put_in_place(partial, self.out)
        return self.out

    def records(self) -> list[Path]:
        out = self.out
        names = out.with_name(f"{out.stem}_classes.txt")
        paths = {name: out.with_name(f"{out.stem}_{name}.rec") for name in self.data.splits}
        for path in [*paths.values(), *(p.with_suffix(".idx") for p in paths.values()), names]:
            _check_new(path)
        self._check_class_names(
            f"be a line of {names.name}",
            lambda name: bool(name) and name == name.strip() and len(name.splitlines()) == 1,
        )
        written = []
        for name, path in paths.items():
            split = self.data.splits[name]
            record, index = (
                path.with_name(f".{path.stem}{ending}.part") for ending in (".rec", ".idx")
            )
            with (
                record.open("wb") as file,
                index.open("w", encoding="ascii", newline="\n") as lines,
            ):
                for number, (row, content, _) in enumerate(self._encoded(name, split)):
                    lines.write(f"{number}\t{file.tell()}\n")
                    labels = split.targets[row].reshape(-1).tolist()
                    write_record(file, pack_image(labels, number, content))
            put_in_place(index, path.with_suffix(".idx"))
            put_in_place(record, path)
            written += [path, path.with_suffix(".idx")]
        if self.data.classes:
            write_whole(names, "".join(f"{name}\n" for name in self.data.classes))
            written.append(names)
        return written

    def folder(self) -> Path:
        _check_new(self.out)
        classes = self.data.classes
        if not classes:
            raise UserError(
                f"{self.out}: a folder needs classes, got real-valued targets. Convert to NAME.npz."
            )
        self._check_class_names(
            "name a folder", lambda name: name[:1] not in {"", "."} and not set("/\\\0") & set(name)
        )
        for name, split in self.data.splits.items():
            counts = split.targets.bincount(minlength=len(classes))
            if (counts == 0).any():
                raise UserError(
                    f"class {classes[int(counts.argmin())]} has no example in the {name} split, "
                    "and a folder needs all classes in all splits. Convert to NAME.npz instead."
                )
        partial = self.out.with_name(f".{self.out.name}.part")
        if partial.exists():  # of an interrupted conversion
            shutil.rmtree(partial)
        folders = {"train": "train", "test": "test", "validation": "val"}
        for name, split in self.data.splits.items():
            for label in classes:
                (partial / folders[name] / label).mkdir(parents=True, exist_ok=True)
            digits = max(5, len(str(len(split))))
            for row, content, ending in self._encoded(name, split):
                label = classes[int(split.targets[row])]
                path = partial / folders[name] / label / f"{row:0{digits}d}.{ending}"
                path.write_bytes(content)
        put_in_place(partial, self.out)
        return self.out

    def _check_class_names(self, purpose: str, fits: Callable[[str], bool]) -> None:
        for name in self.data.classes:
            if not fits(name):
                raise UserError(f"the class name {name!r} cannot {purpose}. Rename it.")
            if self.data.classes.count(name) > 1:
                raise UserError(f"the class name {name!r} is repeated. Rename one.")

    def _encoded(self, name: str, split: Split) -> Iterator[tuple[int, bytes, str]]:
        """Yield rows, their encoded images, and the suffix of such a file."""
        stored = split.inputs if isinstance(split.inputs, StoredImages) else None
        # The files of gray images may have colors, so only color images are copied.
        same = (
            self.encoding == "same"
            and stored is not None
            and stored.options.size is None
            and stored.options.raw is None
            and stored.options.exif
            and stored.options.alpha == "white"
            and stored.shape[1] == 3
        )
        for rows, inputs in self._chunks(name, split):
            for row, image in zip(rows.tolist(), inputs, strict=True):
                if same:
                    assert stored is not None
                    content = stored.files.get(row)
                    yield row, content, _suffix(content)
                else:
                    pixels = image.permute(1, 2, 0).contiguous().numpy()
                    yield row, *_encode(pixels, self.encoding, self.quality)

    def _chunks(self, name: str, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield rows and their inputs, up to about a thousand at a time."""
        each = max(1, math.prod(split.inputs.shape[1:]) * split.inputs.dtype.itemsize)
        for rows in torch.arange(len(split)).split(max(1, min(_CHUNK, _PIECE // each))):
            read = split.read(rows.tolist())
            for sentence in read.skipped:
                self.skipped(name, sentence)
            if len(read.kept):
                yield rows[torch.from_numpy(read.kept)], read.inputs
            self.progress(name, int(rows[-1]) + 1, len(split))


def _encode(pixels: np.ndarray, encoding: str, quality: int) -> tuple[bytes, str]:
    """Encode ``(height, width, channels)`` uint8."""
    if encoding == "raw":
        return pixels.tobytes(), "raw"
    if encoding == "jpeg":
        from simplejpeg import encode_jpeg

        space, subsampling = ("RGB", "420") if pixels.shape[2] == 3 else ("GRAY", "Gray")
        return encode_jpeg(pixels, quality, space, subsampling), "jpg"
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(content, "PNG")
    return content.getvalue(), "png"


def _suffix(content: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return {"JPEG": "jpg", "TIFF": "tif"}.get(str(image.format), str(image.format).lower())


def _check_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists already. Choose another name, or delete it first.")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}. Create it first.")

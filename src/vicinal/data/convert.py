"""Moving a data set from one form to another: MXNet's records, folders, one npz file."""

import io
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vicinal.data.dataset import DataSet, Split
from vicinal.data.formats.images import StoredImages
from vicinal.data.formats.recordio import pack_image, write_record
from vicinal.errors import UserError, unknown
from vicinal.files import put_in_place, write_whole

ENCODINGS = ("same", "png", "jpeg", "raw")
Progress = Callable[[str, int, int], None]
LeftOut = Callable[[str, str], None]

_CHUNK = 1024
_PIECE = 1 << 26  # bytes that are read together


def convert(
    data: DataSet,
    out: Path,
    *,
    encoding: str = "same",
    quality: int = 95,
    progress: Progress = lambda split, done, of: None,
    left_out: LeftOut = lambda split, sentence: None,
) -> list[Path]:
    """Write a data set in another form, which its name decides.

    ``NAME.npz`` is a file for ``load("npz:NAME.npz")``. ``NAME.rec`` becomes ``NAME_train.rec``
    and ``NAME_test.rec`` with an index each, which MXNet reads too, and ``NAME_classes.txt``. Any
    other name is a folder with ``train`` and ``test``, and a folder for each class in them. Files
    are written beside and renamed when they are whole.

    Args:
        data: what is written. Load it with ``in_memory=0`` to have encoded images go over as
            they are, byte for byte.
        out: path of what is to be there.
        encoding: of images in records and folders. ``"same"`` keeps the bytes of encoded ones
            and makes PNG, which loses nothing, of pixels; ``"raw"`` writes pixels, in records only.
        quality: of JPEG, 1 to 100; colors in half resolution, as MXNet and OpenCV write it.
        progress: called with the split, how many of it are written, and how many it has.
        left_out: called with the split and a sentence for each example that cannot be read.

    Returns:
        What was written: files, or the folder.

    Raises:
        UserError: if the form cannot hold the data, or something is there already.
    """
    if encoding not in ENCODINGS:
        raise UserError(unknown("encoding", encoding, ENCODINGS))
    if not 1 <= quality <= 100:
        raise UserError(f"quality = {quality}: wanted 1 to 100")
    for name, split in data.splits.items():
        for sentence in split.skipped:
            left_out(name, sentence)
    if out.suffix == ".npz":
        return [_npz(data, out, progress, left_out)]
    if data.train.inputs.dtype != torch.uint8:
        raise UserError(
            f"records and folders hold images, this data set has {data.train.inputs.dtype} "
            f"{tuple(data.train.inputs.shape[1:])}; convert it to NAME.npz"
        )
    if out.suffix == ".rec":
        return _records(data, out, encoding, quality, progress, left_out=left_out)
    if encoding == "raw":
        raise UserError("a folder holds encoded images; take png, or NAME.rec for raw ones")
    return [_folder(data, out, encoding, quality, progress, left_out=left_out)]


def _npz(data: DataSet, out: Path, progress: Progress, left_out: LeftOut) -> Path:
    _refuse_to_overwrite(out)
    images = data.train.inputs.dtype == torch.uint8
    arrays: dict[str, Any] = {"classes": np.array(data.classes, dtype=str)}
    for name, split in data.splits.items():
        chunks = []
        kept = []
        for rows, inputs in _chunks(split, name, left_out):
            chunks.append(inputs.permute(0, 2, 3, 1).numpy() if images else inputs.numpy())
            kept.append(rows)
            progress(name, int(rows[-1]) + 1, len(split))
        if not kept:
            raise UserError(f"no example of the split {name} can be read; nothing was written")
        arrays[f"{name}_{'images' if images else 'inputs'}"] = np.concatenate(chunks)
        arrays[f"{name}_labels"] = split.targets[torch.cat(kept)].numpy()
    beside = out.with_name(f".{out.name}.part")
    with beside.open("wb") as file:
        np.savez(file, **arrays)
    put_in_place(beside, out)
    return out


def _records(
    data: DataSet,
    out: Path,
    encoding: str,
    quality: int,
    progress: Progress,
    *,
    left_out: LeftOut,
) -> list[Path]:
    paths = {name: out.with_name(f"{out.stem}_{name}.rec") for name in data.splits}
    names = out.with_name(f"{out.stem}_classes.txt")
    for path in [*paths.values(), *(p.with_suffix(".idx") for p in paths.values()), names]:
        _refuse_to_overwrite(path)
    for name in data.classes:
        if not name.strip() or name != name.strip() or len(name.splitlines()) > 1:
            raise UserError(f"the class name {name!r} cannot be a line of {names.name}; rename it")
    _refuse_twins(data.classes)
    written = []
    for name, split in data.splits.items():
        beside, index = (
            paths[name].with_name(f".{paths[name].stem}{s}.part") for s in (".rec", ".idx")
        )
        with beside.open("wb") as file, index.open("w", encoding="ascii", newline="\n") as lines:
            for number, (row, content, _) in enumerate(
                _encoded(split, name, encoding, quality, left_out)
            ):
                lines.write(f"{number}\t{file.tell()}\n")
                labels = split.targets[row].reshape(-1).tolist()
                write_record(file, pack_image(labels, number, content))
                if number % _CHUNK == 0 or row == len(split) - 1:
                    progress(name, row + 1, len(split))
        put_in_place(index, paths[name].with_suffix(".idx"))
        put_in_place(beside, paths[name])
        written += [paths[name], paths[name].with_suffix(".idx")]
    if data.classes:
        write_whole(names, "".join(f"{name}\n" for name in data.classes))
        written.append(names)
    return written


def _folder(
    data: DataSet,
    out: Path,
    encoding: str,
    quality: int,
    progress: Progress,
    *,
    left_out: LeftOut,
) -> Path:
    _refuse_to_overwrite(out)
    if not data.classes:
        raise UserError("a folder a class needs classes, and this data set has real-valued targets")
    for name in data.classes:
        if (
            name in {"", ".", ".."}
            or name.startswith(".")
            or "/" in name
            or "\\" in name
            or "\0" in name
        ):
            raise UserError(f"the class name {name!r} cannot name a folder")
    beside = out.with_name(f".{out.name}.part")
    _refuse_twins(data.classes)
    for name, split in data.splits.items():
        counts = split.targets.bincount(minlength=len(data.classes))
        if (counts == 0).any():
            raise UserError(
                f"class {data.classes[int(counts.argmin())]} has no example in the split {name}, "
                "and a folder of images is read with all classes in all splits; take NAME.npz"
            )
    if beside.exists():  # of an attempt that was broken off
        shutil.rmtree(beside)
    folders = {"train": "train", "test": "test", "validation": "val"}
    for name, split in data.splits.items():
        for label in data.classes:
            (beside / folders[name] / label).mkdir(parents=True, exist_ok=True)
        digits = max(5, len(str(len(split))))
        for row, content, ending in _encoded(split, name, encoding, quality, left_out):
            label = data.classes[int(split.targets[row])]
            path = beside / folders[name] / label / f"{row:0{digits}d}.{ending}"
            path.write_bytes(content)
            if row % _CHUNK == 0 or row == len(split) - 1:
                progress(name, row + 1, len(split))
    put_in_place(beside, out)
    return out


def _encoded(
    split: Split, name: str, encoding: str, quality: int, left_out: LeftOut
) -> Iterator[tuple[int, bytes, str]]:
    """Yield rows, their images encoded, and the ending of such a file's name."""
    stored = split.inputs if isinstance(split.inputs, StoredImages) else None
    # Gray images may come of colored files.
    plain = stored and not stored.resized and not stored.raw and stored.shape[1] == 3
    as_it_is = encoding == "same" and plain
    for rows, inputs in _chunks(split, name, left_out):
        for row, image in zip(rows.tolist(), inputs, strict=True):
            if as_it_is:
                assert stored is not None
                content = stored.files.get(row)
                yield row, content, _ending(content)
            else:
                pixels = image.permute(1, 2, 0).contiguous().numpy()
                yield row, *_encode(pixels, encoding, quality)


def _encode(pixels: np.ndarray, encoding: str, quality: int) -> tuple[bytes, str]:
    """Encode ``(height, width, channels)`` uint8."""
    if encoding == "raw":
        return pixels.tobytes(), "raw"
    if encoding == "jpeg":
        from simplejpeg import encode_jpeg

        space = "RGB" if pixels.shape[2] == 3 else "GRAY"
        subsampling = "420" if space == "RGB" else "Gray"
        return encode_jpeg(pixels, quality, space, subsampling), "jpg"
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(content, "PNG")
    return content.getvalue(), "png"


def _ending(content: bytes) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return {"JPEG": "jpg", "TIFF": "tif"}.get(str(image.format), str(image.format).lower())


def _chunks(split: Split, name: str, left_out: LeftOut) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows and their inputs, a thousand at a time; bad ones are raised or left out."""
    each = max(1, math.prod(split.inputs.shape[1:]) * split.inputs.dtype.itemsize)
    for rows in torch.arange(len(split)).split(max(1, min(_CHUNK, _PIECE // each))):
        read = split.read(rows.tolist())
        for sentence in read.skipped:
            left_out(name, sentence)
        if len(read.kept):
            yield rows[torch.from_numpy(read.kept)], read.inputs


def _refuse_twins(classes: Sequence[str]) -> None:
    for name in classes:
        if classes.count(name) > 1:
            raise UserError(f"the class name {name!r} comes twice; rename one")


def _refuse_to_overwrite(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already; choose another name, or delete it first")
    if not path.parent.is_dir():
        raise UserError(
            f"there is no folder {path.parent} to write {path.name} into; make it first"
        )

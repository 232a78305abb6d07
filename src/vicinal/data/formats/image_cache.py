"""Keep resized images in the cache folder of the user, so that they are decoded only once."""

import contextlib
import errno
import json
import os
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from vicinal.data.dataset import Note
from vicinal.data.formats.images import ImageChanges

CACHE_BYTES = 20_000_000_000
"""The most bytes of the cache folder; the images that were not used for the longest go first."""

_PIECE = 1 << 24  # bytes that are written at once
_ENTRY = re.compile(r"\.?[0-9a-f]{32}\..*(npy|json|part)")


class DecodedImages(NamedTuple):
    """Images that were decoded, those of all splits that the same files are divided into.

    Args:
        pixels: ``(k, channels, height, width)`` uint8, perhaps mapped from a file.
        kept: ``(k,)`` int64, their numbers among the files.
        skipped: a sentence for each other file, in order.
        changes: what decoding changed.
    """

    pixels: np.ndarray
    kept: np.ndarray
    skipped: list[str]
    changes: ImageChanges


def cached(key: str, decode: Callable[[], DecodedImages]) -> tuple[DecodedImages, tuple[Note, ...]]:
    """Return images from the cache, or decode them and write them there.

    The cache is the folder ``$VICINAL_CACHE``, or else ``vicinal`` in the cache folder of the user;
    an empty ``$VICINAL_CACHE`` turns it off. An entry is two files, ``KEY.npy`` with the pixels and
    ``KEY.json`` with the rest and a checksum. The latter is written last, and each is renamed into
    place, so processes may write the same entry at the same time. A damaged entry is written again.

    Args:
        key: a hash of all that decides the result.
        decode: decodes the images.

    Returns:
        The images, and a note about the cache.

    Raises:
        UserError: as ``decode`` does. If the cache cannot be read or written, a note says so.
    """
    folder = cache_folder()
    if folder is None:
        return decode(), ()
    if (found := _read(folder, key)) is None:
        found = decode()
        try:
            found = _write(folder, key, found)
        except OSError as error:
            text = f"resized images cannot be cached in {folder}: {error.strerror}"
            return found, (Note(f"{text}. They will be decoded again the next time"),)
    return found, (Note(f"resized images are cached in {folder}; $VICINAL_CACHE names another"),)


def cache_folder() -> Path | None:
    """Return the folder of the cache, None if it is turned off."""
    named = os.environ.get("VICINAL_CACHE")
    if named is None:
        import pooch

        return Path(pooch.os_cache("vicinal"))
    return Path(os.path.expanduser(named)) if named else None


def _read(folder: Path, key: str) -> DecodedImages | None:
    """Return an entry, None if there is none or it is damaged."""
    try:
        checksum, about = json.loads((folder / f"{key}.json").read_text("utf-8"))
        pixels = np.load(folder / f"{key}.npy", mmap_mode="r", allow_pickle=False)
        if about["shape"] != list(pixels.shape) or checksum != _checksum(pixels, about):
            return None
        with contextlib.suppress(OSError):  # a cache that others share may be read-only
            for path in folder.glob(f"{key}.*"):
                os.utime(path)  # since those that were not used for the longest are deleted
        changes = ImageChanges(**about["changes"])
        changes.counts = Counter(changes.counts)
        return DecodedImages(pixels, np.array(about["kept"], np.int64), about["skipped"], changes)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _write(folder: Path, key: str, images: DecodedImages) -> DecodedImages:
    """Write an entry, and return it as it is read again, which frees the memory of the images."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "shape": images.pixels.shape,
        "kept": images.kept.tolist(),
        "skipped": images.skipped,
        "changes": vars(images.changes),
    }
    if shutil.disk_usage(folder).free < 2 * images.pixels.nbytes:
        raise OSError(errno.ENOSPC, "the disk is nearly full")
    pixels, rest = folder / f"{key}.npy", folder / f"{key}.json"
    temporary = folder / f".{key}.{os.getpid()}.{threading.get_ident()}.part"
    try:
        with temporary.open("wb") as file:
            header = np.lib.format.header_data_from_array_1_0(images.pixels)
            np.lib.format.write_array_header_1_0(file, header)
            flat = images.pixels.reshape(-1)
            for start in range(0, len(flat), _PIECE):
                file.write(flat[start : start + _PIECE].data)
        temporary.replace(pixels)  # not synced, since a damaged entry is noticed and written again
        temporary.write_text(json.dumps([_checksum(images.pixels, about), about]), "utf-8")
        temporary.replace(rest)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    _trim(folder, keep=key)
    return images._replace(pixels=np.load(pixels, mmap_mode="r", allow_pickle=False))


def _checksum(pixels: np.ndarray, about: Mapping[str, Any]) -> int:
    flat = pixels.reshape(-1)
    value = zlib_ng.crc32(json.dumps(about).encode())
    for start in range(0, len(flat), _PIECE):
        value = zlib_ng.crc32(flat[start : start + _PIECE].data, value)
    return value


def _trim(folder: Path, keep: str) -> None:
    """Delete the entries that were not used for the longest, until the rest fits.

    Other files in the folder, which the user may have chosen, are left alone.
    """
    with contextlib.suppress(OSError):  # another process may delete them too
        own = [path for path in folder.iterdir() if _ENTRY.fullmatch(path.name)]
        files = sorted(own, key=lambda path: path.stat().st_mtime, reverse=True)
        size = 0
        for path in files:
            size += path.stat().st_size
            if size > CACHE_BYTES and keep not in path.name:
                path.unlink()

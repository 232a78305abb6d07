"""MXNet's RecordIO: one file of payloads, each behind a magic number and its length."""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vicinal.errors import UserError

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_FRAME = struct.Struct("<II")
"""Before a payload: the magic number, kind and length."""
_LENGTH_BITS = 29
_LONGEST = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_BLOCK = 1 << 12  # one page, which may have several small records

HEADER = struct.Struct("<IfQQ")
"""Of an image record: number of labels after it, label, two numbers of the record."""


class RecordFile:
    """A file of records, read at any offset, in any process.

    It has no position and is not mapped into memory, so that only the records that are read take
    memory.

    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            UserError: if it cannot be opened, or is empty.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}. Check the path.") from error
        self._size = os.fstat(self._file).st_size
        if not self._size:
            raise UserError(f"{path}: expected a RecordIO file, got an empty one.")

    def __reduce__(self) -> tuple[type["RecordFile"], tuple[Path]]:
        """Let another process open the file itself."""
        return RecordFile, (self.path,)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def scan(self) -> Iterator[tuple[int, int]]:
        """Yield the offset of each record and, if it has one part, its length.

        The length of a record in several parts is -1. Large payloads are not read.

        Raises:
            UserError: if a record is followed by something else, or the file ends within one.
        """
        block, start = b"", 0
        offset = begin = 0
        inside = False
        while offset < self._size:
            at = offset - start
            if at + _FRAME.size > len(block):
                block, start, at = os.pread(self._file, _BLOCK, offset), offset, 0
            kind, length = self._frame(offset, block[at : at + _FRAME.size])
            if inside != (kind in {_MIDDLE, _LAST}):
                raise self._broken(offset, "parts of a record in the wrong order")
            if kind in {_WHOLE, _FIRST}:
                begin = offset
            inside = kind in {_FIRST, _MIDDLE}
            if not inside:
                yield begin, length if kind == _WHOLE else -1
            offset += _FRAME.size + _padded(length)
        if inside or offset > self._size:
            raise self._broken(self._size, "the end of the file inside a record")

    def read(self, offset: int, length: int, count: int = _LONGEST) -> bytes:
        """Return the payload of a record that ``scan`` found, or its first ``count`` bytes.

        Raises:
            UserError: if the record is not there anymore.
        """
        if length < 0:
            return self._read_parts(offset)[:count]
        count = min(count, length)
        data = os.pread(self._file, _FRAME.size + count, offset)
        if len(data) < _FRAME.size + count or _FRAME.unpack_from(data) != (MAGIC, length):
            raise self._broken(offset, "bytes that were changed since it was opened")
        return data[_FRAME.size :]

    def _read_parts(self, offset: int) -> bytes:
        parts = []
        kind = _FIRST
        while kind != _LAST:
            kind, length = self._frame(offset, os.pread(self._file, _FRAME.size, offset))
            parts.append(os.pread(self._file, length, offset + _FRAME.size))
            offset += _FRAME.size + _padded(length)
        return _MAGIC_BYTES.join(parts)

    def _frame(self, offset: int, data: bytes) -> tuple[int, int]:
        """Return the kind and length of a part."""
        if len(data) < _FRAME.size:
            raise self._broken(offset, "the end of the file")
        magic, word = _FRAME.unpack(data)
        if magic != MAGIC:
            raise self._broken(offset, f"0x{magic:08x} instead of 0x{MAGIC:08x}")
        kind, length = word >> _LENGTH_BITS, word & _LONGEST
        if kind > _LAST:
            raise self._broken(offset, f"a record of the unknown kind {kind}")
        left = self._size - offset - _FRAME.size
        if length > left:
            raise self._broken(
                offset, f"a record of {length} bytes, but only {left} bytes are left in the file"
            )
        return kind, length

    def _broken(self, offset: int, found: str) -> UserError:
        return UserError(
            f"{self.path}, byte {offset}: expected a RecordIO record, got {found}. The file is "
            "damaged, incomplete or in a different format. Download or write it again."
        )


def _padded(length: int) -> int:
    return (length + 3) & ~3


def write_record(file: BinaryIO, payload: bytes) -> None:
    """Append a record, framed byte for byte as MXNet does.

    A payload that has the magic number at a multiple of four bytes is divided there and the number
    is omitted, so that it only begins records.

    Raises:
        UserError: if the payload has 512 MiB or more.
    """
    if len(payload) > _LONGEST:
        raise UserError(
            f"RecordIO: expected a record of at most {_LONGEST} bytes, got {len(payload)}. Make "
            "the image smaller, or write to a folder instead."
        )
    words = np.frombuffer(payload, "<u4", len(payload) // 4)
    cuts = (4 * np.flatnonzero(words == MAGIC)).tolist()
    kinds = [_FIRST, *[_MIDDLE] * (len(cuts) - 1), _LAST] if cuts else [_WHOLE]
    begins, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(payload)]
    for kind, begin, end in zip(kinds, begins, ends, strict=True):
        part = payload[begin:end]
        file.write(_FRAME.pack(MAGIC, kind << _LENGTH_BITS | len(part)))
        file.write(part + bytes(_padded(len(part)) - len(part)))


def read_index(path: Path) -> np.ndarray:
    """Return the offsets that an index file lists, ``(n,)`` int64, in its own order.

    Raises:
        UserError: if a line does not consist of a key, a tab and an offset, or if two lines have
            the same key or the same offset.
    """
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected a text file that can be read ({error}).") from error
    offsets: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (found := re.fullmatch(r"(\d+)\t(\d{1,18})", line)) or found[1] in offsets:
            raise UserError(
                f"{path}, line {number}: expected a new key, a tab and an offset, got "
                f"{line[:80]!r}."
            )
        offsets[found[1]] = int(found[2])
    if len(set(offsets.values())) < len(offsets):
        raise UserError(f"{path}: expected different offsets, got one twice. Delete the index.")
    return np.array(list(offsets.values()), np.int64)


def pack_image(label: Sequence[float] | np.ndarray, id: int, content: bytes) -> bytes:
    """Return the payload of an image record: header, labels, image.

    One label goes into the header; none or several are counted there and follow it.

    Example:
        >>> len(pack_image([3.0], 7, b"image")), len(pack_image([3.0, 0.5], 7, b"image"))
        (29, 37)
    """
    numbers = np.asarray(label, "<f4")
    if len(numbers) == 1:
        return HEADER.pack(0, float(numbers[0]), id, 0) + content
    return HEADER.pack(len(numbers), 0.0, id, 0) + numbers.tobytes() + content


def image_labels(head: bytes) -> tuple[np.ndarray, int]:
    """Return the labels of an image record, and the offset of the image in its payload.

    Labels are ``(k,)`` float32. ``head`` is the payload or its beginning, with all labels.

    Raises:
        ValueError: if it is too short for a header and its labels.

    Example:
        >>> image_labels(pack_image([3.0, 0.5], 7, b"image"))
        (array([3. , 0.5], dtype=float32), 32)
    """
    if len(head) < HEADER.size:
        raise ValueError(
            f"expected an image record of at least {HEADER.size} bytes, got {len(head)}"
        )
    count, label, _, _ = HEADER.unpack_from(head)
    if not count:
        return np.array([label], np.float32), HEADER.size
    end = HEADER.size + 4 * count
    if len(head) < end:
        raise ValueError(
            f"expected {end} bytes or more, since its header states {count} labels, got a record "
            f"of {len(head)} bytes"
        )
    return np.frombuffer(head, "<f4", count, HEADER.size).astype(np.float32), end

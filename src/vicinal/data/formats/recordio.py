"""MXNet's RecordIO: one file of payloads, each behind a magic number and its length."""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vicinal.errors import UserError

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
FRAME = struct.Struct("<II")
"""Before a payload: the magic number, kind and length."""
_LENGTH_BITS = 29
_LONGEST = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_BLOCK = 1 << 16

HEADER = struct.Struct("<IfQQ")
"""Of an image record: number of labels behind it, label, two numbers of the record."""


class RecordFile:
    """A file of records, read at any offset, in any process.

    It has no position and is not mapped into memory, so that only the records that are read take
    memory.

    Args:
        path: of a ``.rec`` file.

    Raises:
        UserError: if it cannot be opened, or is empty.
    """

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; check the path") from error
        self.size = os.fstat(self._file).st_size
        if not self.size:
            raise UserError(f"{path}: expected a RecordIO file, got an empty one")

    def __reduce__(self) -> tuple[type["RecordFile"], tuple[Path]]:
        """Let another process open the file itself."""
        return RecordFile, (self.path,)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int) -> bytes:
        """Return the payload of the record that begins at an offset, with its parts joined.

        Raises:
            UserError: if no whole record begins there.
        """
        kind, length = self._frame(offset, self._bytes(offset, FRAME.size))
        payload = self._bytes(offset + FRAME.size, length)
        if kind == _WHOLE:
            return payload
        if kind != _FIRST:
            raise self._broken(offset, "a part of a record whose first part is missing")
        parts = [payload]
        at = offset
        while kind != _LAST:
            at += FRAME.size + _padded(length)
            kind, length = self._frame(at, self._bytes(at, FRAME.size))
            if kind not in {_MIDDLE, _LAST}:
                raise self._broken(at, "another record instead of a further part")
            parts.append(self._bytes(at + FRAME.size, length))
        return _MAGIC_BYTES.join(parts)

    def read_whole(self, offset: int, length: int) -> bytes:
        """Return the payload of a record that has one part of a known length, in one read."""
        data = os.pread(self._file, FRAME.size + length, offset)
        if len(data) < FRAME.size + length or FRAME.unpack_from(data) != (MAGIC, length):
            return self.read(offset)  # which names the error
        return data[FRAME.size :]

    def peek(self, offset: int, length: int, count: int) -> bytes:
        """Return the first bytes of a payload, ``count`` or as many as there are.

        Args:
            offset: where the record begins.
            length: of its payload, -1 if it has several parts.
            count: how many bytes are load_options.
        """
        if length < 0:
            return self.read(offset)[:count]
        return os.pread(self._file, min(count, length), offset + FRAME.size)

    def scan(self) -> Iterator[tuple[int, int]]:
        """Yield the offset of each record and, if it has one part, its length.

        The length of a record in several parts is -1. Large payloads are not read.

        Raises:
            UserError: if anything but a record begins after one, or the file ends within one.
        """
        block, start = b"", 0
        offset, inside, begin = 0, False, 0
        while offset < self.size:
            at = offset - start
            if at + FRAME.size > len(block):
                block, start, at = os.pread(self._file, _BLOCK, offset), offset, 0
            kind, length = self._frame(offset, block[at : at + FRAME.size])
            if inside != (kind in {_MIDDLE, _LAST}):
                what = (
                    "another record instead of a further part"
                    if inside
                    else "a part without a first part"
                )
                raise self._broken(offset, what)
            if kind == _WHOLE:
                yield offset, length
            elif kind == _FIRST:
                inside, begin = True, offset
            elif kind == _LAST:
                inside = False
                yield begin, -1
            offset += FRAME.size + _padded(length)
        if inside or offset > self.size:
            raise self._broken(begin if inside else self.size, "the end of the file in a record")

    def lengths(self, offsets: Iterable[int]) -> Iterator[int]:
        """Yield the length of the record at each offset, -1 if it has several parts.

        Raises:
            UserError: if no record begins there.
        """
        for offset in offsets:
            if not 0 <= offset < self.size:
                raise self._broken(offset, f"nothing, since the file has {self.size} bytes")
            kind, length = self._frame(offset, self._bytes(offset, FRAME.size))
            if kind in {_MIDDLE, _LAST}:
                raise self._broken(offset, "a part of a record whose first part is missing")
            yield length if kind == _WHOLE else -1

    def _frame(self, offset: int, data: bytes) -> tuple[int, int]:
        if len(data) < FRAME.size:
            raise self._broken(offset, "the end of the file")
        magic, word = FRAME.unpack(data)
        if magic != MAGIC:
            raise self._broken(offset, f"0x{magic:08x} instead of 0x{MAGIC:08x}")
        kind, length = word >> _LENGTH_BITS, word & _LONGEST
        if kind > _LAST:
            raise self._broken(offset, f"a record of the unknown kind {kind}")
        if offset + FRAME.size + length > self.size:
            left = self.size - offset - FRAME.size
            raise self._broken(offset, f"a record of {length} bytes, of which the file has {left}")
        return kind, length

    def _bytes(self, offset: int, count: int) -> bytes:
        data = os.pread(self._file, count, offset)
        if len(data) < count:  # the file has become shorter
            raise self._broken(offset, "the end of the file")
        return data

    def _broken(self, offset: int, found: str) -> UserError:
        return UserError(
            f"{self.path}, byte {offset}: expected a RecordIO record, got {found}; "
            "the file is damaged, incomplete or of another format"
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
        raise UserError(f"a record has to have less than {_LONGEST + 1} bytes, got {len(payload)}")
    done = 0
    at = payload.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4:
            at = payload.find(_MAGIC_BYTES, at + 1)
            continue
        _write_part(file, _MIDDLE if done else _FIRST, payload[done:at])
        done = at + 4
        at = payload.find(_MAGIC_BYTES, done)
    _write_part(file, _LAST if done else _WHOLE, payload[done:])


def _write_part(file: BinaryIO, kind: int, data: bytes) -> None:
    file.write(FRAME.pack(MAGIC, kind << _LENGTH_BITS | len(data)))
    file.write(data + bytes(_padded(len(data)) - len(data)))


def read_index(path: Path) -> np.ndarray:
    """Return the offsets that an index file lists, ``(n,)`` int64, in its own order.

    Raises:
        UserError: if a line is not a key, a tab and an offset, or a key or an offset comes twice.
    """
    try:
        lines = path.read_text("ascii").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, byte {error.start}: expected text, a key and an offset"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        key, _, offset = line.partition("\t")
        if not (key.isdigit() and offset.isdigit() and len(offset) < 20):
            raise UserError(f"{path}, line {number}: expected key, tab, offset, got {line[:80]!r}")
        if key in seen:
            raise UserError(f"{path}, line {number}: expected each key once, got {key} again")
        seen[key] = int(offset)
    if len(set(seen.values())) < len(seen):
        raise UserError(f"{path}: expected different offsets, got one twice; delete the index")
    if max(seen.values(), default=0) >= 1 << 63:
        raise UserError(f"{path}: an offset is larger than any file")
    return np.array(list(seen.values()), np.int64)


def pack_image(label: Sequence[float] | np.ndarray, id: int, content: bytes) -> bytes:
    """Return the payload of an image record: header, labels, image.

    One label goes into the header; none or several are counted there and follow it.

    Example:
        >>> len(pack_image([3.0], 7, b"image")), len(pack_image([3.0, 0.5], 7, b"image"))
        (29, 37)
    """
    numbers = np.asarray(label, np.float32)
    if len(numbers) == 1:
        return HEADER.pack(0, float(numbers[0]), id, 0) + content
    return HEADER.pack(len(numbers), 0.0, id, 0) + numbers.astype("<f4").tobytes() + content


def image_labels(head: bytes) -> tuple[np.ndarray, int]:
    """Return the labels of an image record, and the offset of the image in its payload.

    Args:
        head: the payload or its beginning, with all labels.

    Returns:
        ``(k,)`` float32, one number if the record has no vector of labels; and the offset.

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
        raise ValueError(f"a record of {len(head)} bytes claims {count} labels; it is damaged")
    return np.frombuffer(head, "<f4", count, HEADER.size).astype(np.float32), end

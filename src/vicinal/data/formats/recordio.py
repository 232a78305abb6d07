"""MXNet's RecordIO: payloads in a row in one file, each behind a magic number and its length."""

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

    It holds no position and maps nothing into memory, so that reading a large file costs no more
    than the records that are asked for.

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
            raise UserError(f"{path} is empty: a RecordIO file has a record at least")

    def __reduce__(self) -> tuple[type["RecordFile"], tuple[Path]]:
        """Hand over to another process, which opens the file itself."""
        return RecordFile, (self.path,)

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            os.close(self._file)

    def read(self, offset: int) -> bytes:
        """Return the payload of the record that begins at a byte, its parts joined again.

        Raises:
            UserError: if no whole record begins there.
        """
        kind, length = self._frame(offset, self._bytes(offset, FRAME.size))
        payload = self._bytes(offset + FRAME.size, length)
        if kind == _WHOLE:
            return payload
        if kind != _FIRST:
            raise self._broken(offset, "a part of a record whose beginning is missing")
        parts = [payload]
        at = offset
        while kind != _LAST:
            at += FRAME.size + _padded(length)
            kind, length = self._frame(at, self._bytes(at, FRAME.size))
            if kind not in {_MIDDLE, _LAST}:
                raise self._broken(at, "another record where a further part should be")
            parts.append(self._bytes(at + FRAME.size, length))
        return _MAGIC_BYTES.join(parts)

    def read_whole(self, offset: int, length: int) -> bytes:
        """Return the payload of a record that has one part of a known length, in one look."""
        data = os.pread(self._file, FRAME.size + length, offset)
        if len(data) < FRAME.size + length or FRAME.unpack_from(data) != (MAGIC, length):
            return self.read(offset)  # which tells what is the matter
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
        """Walk through the file: for each record its offset and, if it has one part, its length.

        The length of a record in several parts is -1. Only the neighborhood of each frame is
        read, so a file of large records costs little.

        Raises:
            UserError: where something else than a record begins, or the file ends within one.
        """
        block, start = b"", 0
        offset, inside, begin = 0, False, 0
        while offset < self.size:
            at = offset - start
            if at + FRAME.size > len(block):
                block, start, at = os.pread(self._file, _BLOCK, offset), offset, 0
            kind, length = self._frame(offset, block[at : at + FRAME.size])
            if inside != (kind in {_MIDDLE, _LAST}):
                what = "another record where a further part should be" if inside else "a stray part"
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
        """Return for each offset the length of its record, -1 if it has several parts.

        Raises:
            UserError: if no record begins there.
        """
        for offset in offsets:
            if not 0 <= offset < self.size:
                raise self._broken(offset, f"nothing, since the file has {self.size} bytes")
            kind, length = self._frame(offset, self._bytes(offset, FRAME.size))
            if kind in {_MIDDLE, _LAST}:
                raise self._broken(offset, "a part of a record whose beginning is missing")
            yield length if kind == _WHOLE else -1

    def _frame(self, offset: int, data: bytes) -> tuple[int, int]:
        if len(data) < FRAME.size:
            raise self._broken(offset, "the end of the file")
        magic, word = FRAME.unpack(data)
        if magic != MAGIC:
            raise self._broken(offset, f"0x{magic:08x} instead of 0x{MAGIC:08x}")
        kind, length = word >> _LENGTH_BITS, word & _LONGEST
        if kind > _LAST:
            raise self._broken(offset, f"a record of kind {kind}, where 0 to 3 are known")
        if offset + FRAME.size + length > self.size:
            left = self.size - offset - FRAME.size
            raise self._broken(offset, f"a record of {length} bytes, of which {left} are there")
        return kind, length

    def _bytes(self, offset: int, count: int) -> bytes:
        data = os.pread(self._file, count, offset)
        if len(data) < count:  # or the file has shrunk, or a disk gives less at once
            raise self._broken(offset, "the end of the file")
        return data

    def _broken(self, offset: int, found: str) -> UserError:
        return UserError(
            f"{self.path}, byte {offset}: wanted a RecordIO record, found {found}; "
            "the file is damaged, incomplete or of another kind"
        )


def _padded(length: int) -> int:
    return (length + 3) & ~3


def write_record(file: BinaryIO, payload: bytes) -> None:
    """Append a record, framed byte for byte as MXNet does.

    A payload that holds the magic number at a multiple of four bytes is divided there, and the
    number left out, so that it begins records only.

    Raises:
        UserError: if the payload has 512 MiB or more.
    """
    if len(payload) > _LONGEST:
        raise UserError(f"a record holds less than {_LONGEST + 1} bytes, got {len(payload)}")
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
        raise UserError(f"{path}, byte {error.start}: wanted text, a key and an offset") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        key, _, offset = line.partition("\t")
        if not (key.isdigit() and offset.isdigit() and len(offset) < 20):
            raise UserError(f"{path}, line {number}: wanted key, tab, offset, found {line[:80]!r}")
        if key in seen:
            raise UserError(f"{path}, line {number}: key {key} was there before")
        seen[key] = int(offset)
    if len(set(seen.values())) < len(seen):
        raise UserError(f"{path}: two keys have the same offset; delete it to read without it")
    if max(seen.values(), default=0) >= 1 << 63:
        raise UserError(f"{path}: an offset is larger than any file")
    return np.array(list(seen.values()), np.int64)


def pack_image(label: Sequence[float] | np.ndarray, id: int, content: bytes) -> bytes:
    """Return the payload of an image record: header, labels, image.

    One label goes into the header; several, or none, behind it, counted.

    Example:
        >>> len(pack_image([3.0], 7, b"image")), len(pack_image([3.0, 0.5], 7, b"image"))
        (29, 37)
    """
    numbers = np.asarray(label, np.float32)
    if len(numbers) == 1:
        return HEADER.pack(0, float(numbers[0]), id, 0) + content
    return HEADER.pack(len(numbers), 0.0, id, 0) + numbers.astype("<f4").tobytes() + content


def image_labels(head: bytes) -> tuple[np.ndarray, int]:
    """Return the labels of an image record, and where in its payload the image begins.

    Args:
        head: the payload or its beginning, with all labels.

    Returns:
        ``(k,)`` float32, one number where the record has no vector of labels; and a byte.

    Raises:
        ValueError: if it is too short for a header and the labels that this announces.

    Example:
        >>> image_labels(pack_image([3.0, 0.5], 7, b"image"))
        (array([3. , 0.5], dtype=float32), 32)
    """
    if len(head) < HEADER.size:
        raise ValueError(f"wanted an image record of {HEADER.size} bytes, found {len(head)}")
    count, label, _, _ = HEADER.unpack_from(head)
    if not count:
        return np.array([label], np.float32), HEADER.size
    end = HEADER.size + 4 * count
    if len(head) < end:
        raise ValueError(f"a record of {len(head)} bytes announces {count} labels; it is damaged")
    return np.frombuffer(head, "<f4", count, HEADER.size).astype(np.float32), end

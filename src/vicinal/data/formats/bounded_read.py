"""Reading of values whose number a header claims, which may be any number in a damaged file."""

from typing import IO

import numpy as np

from vicinal.errors import UserError

_PIECE = 1 << 22
_DEFLATE_AT_MOST = 1032  # bytes that one compressed byte can stand for


def check_claim(where: object, claimed: int, stored: int, max_bytes: int) -> None:
    """Check the number of bytes that a header claims before memory is allocated for them.

    Raises:
        UserError: if ``stored`` bytes of the file, compressed by deflate or not, cannot hold that
            many, or ``max_bytes`` does not allow them.
    """
    if claimed > stored * _DEFLATE_AT_MOST:
        raise UserError(
            f"{where}: the header claims {claimed} bytes, which {stored} bytes cannot hold. The "
            "file is damaged or incomplete."
        )
    if claimed > max_bytes:
        raise UserError(
            f"{where}: expected at most {max_bytes} bytes in memory (max_bytes), got {claimed}. If "
            "you trust the file, raise max_bytes (--max-bytes)."
        )


def read_rest(file: IO[bytes], count: int) -> np.ndarray:
    """Read the rest of a file, ``(count,)`` uint8.

    Raises:
        EOFError: if it has fewer or more bytes.
    """
    values = np.empty(count, np.uint8)  # pages that are not written take no memory
    for start in range(0, count, _PIECE):
        piece = values[start : start + _PIECE]
        data = file.read(len(piece))
        if len(data) < len(piece):
            raise EOFError(f"expected {count} bytes after the header, got {start + len(data)}")
        piece[:] = np.frombuffer(data, np.uint8)
    if file.read(1):
        raise EOFError(f"expected {count} bytes after the header, got more")
    return values

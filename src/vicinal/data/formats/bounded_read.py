"""Reading of numbers from files whose headers may claim any size."""

from typing import IO

import numpy as np

from vicinal.errors import UserError

_PIECE = 1 << 22
_DEFLATE_AT_MOST = 1032  # bytes that one compressed byte can stand for


def check_claim(where: object, claimed: int, stored: int, max_bytes: int) -> None:
    """Check the number of bytes that a header claims before memory is allocated for them.

    Args:
        where: file, or file and array, for the error.
        claimed: number of bytes.
        stored: bytes that the file has for them, perhaps compressed by deflate.
        max_bytes: as in ``load``.

    Raises:
        UserError: if so few stored bytes cannot hold them, or they are more than ``max_bytes``.
    """
    if claimed > stored * _DEFLATE_AT_MOST:
        raise UserError(
            f"{where}: its header claims {claimed} bytes, which {stored} bytes cannot hold; the "
            "file is damaged or incomplete"
        )
    if claimed > max_bytes:
        raise UserError(
            f"{where} takes {claimed} bytes once it is decoded, more than max_bytes = {max_bytes}; "
            "raise max_bytes if the file is genuine"
        )


def read_rest(file: IO[bytes], count: int) -> np.ndarray:
    """Read the rest of a file, ``(count,)`` uint8.

    Raises:
        EOFError: if it has fewer or more bytes.
    """
    values = np.empty(count, np.uint8)  # pages that are not written take no memory
    for at in range(0, count, _PIECE):
        piece = values[at : at + _PIECE]
        data = file.read(len(piece))
        if len(data) < len(piece):
            raise EOFError(f"expected {count} bytes behind the header, got {at + len(data)}")
        piece[:] = np.frombuffer(data, np.uint8)
    if file.read(1):
        raise EOFError(f"expected {count} bytes behind the header, got more")
    return values

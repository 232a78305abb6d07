"""Keeps freed memory in the process between training steps, and measures the peak."""

import contextlib
import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of <malloc.h>
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_THRESHOLD: 128 * 1024, _MMAP_MAX: 65536}


@contextlib.contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory in the process inside the ``with`` block, and return it afterwards.

    By default glibc returns each large tensor to the system when it is freed, and asks for new
    memory, which the system has to clear, for the next one. Training needs the same memory in
    each step; keeping it makes bfloat16 steps on CPUs 10% to 22% faster. Nothing happens with other
    C libraries.

    Example:
        >>> import torch
        >>> with memory_kept():
        ...     step = [float(torch.ones(1 << 20).sum()) for _ in range(3)]
        >>> step
        [1048576.0, 1048576.0, 1048576.0]
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_MAX, 0)
    glibc.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            glibc.mallopt(option, value)
        glibc.malloc_trim(0)


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure the peak of memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # other systems than Linux keep the peak of the process
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the peak of memory in bytes: of a GPU, or of this process.

    Example:
        >>> reset_peak_memory(torch.device("cpu"))
        >>> peak_memory(torch.device("cpu")) > 1_000_000
        True
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

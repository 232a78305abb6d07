"""The number of CPU threads of PyTorch."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run with ``count`` CPU threads, or with the current number if None; then restore it.

    Small operations, and operations next to busy processes, are faster in one thread: several wait
    for each other, and the slowest may share its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

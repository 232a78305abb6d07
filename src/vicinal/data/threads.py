"""The number of CPU threads of PyTorch."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Run with ``count`` CPU threads, then restore the earlier number; None changes nothing.

    Small operations are faster in one thread, since several threads have to wait for each other.
    So are operations next to busy processes, since one of the threads may have to share its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
